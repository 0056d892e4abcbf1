from lens_pipeline.storage.read_table import read_table

__all__ = ["read_table"]
