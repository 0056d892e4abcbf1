"""``lens_pipeline prune``: make the cache of fetched objects smaller."""

from lens_pipeline.storage.cache import Cache
from lens_pipeline.storage.home import Home


def run(keep: int) -> int:
    """Remove cached objects that nobody reads just now, the longest unused first, until at most `keep` bytes are left.

    Nothing is lost by it: what is needed again is fetched again. It may run beside anything.
    """
    cache = Cache.from_environment(Home.from_environment().path)
    if not cache.folder.is_dir():
        print(f"nothing is cached: there is no folder {cache.folder}.")
        return 0
    removed = cache.prune(keep)
    kept = cache.used()
    print(f"{removed:,} bytes of fetched objects were removed from {cache.folder}, {kept:,} are kept.")
    if kept > keep:
        print(f"That is more than the {keep:,} asked for: the others are being read or fetched.")
    return 0
