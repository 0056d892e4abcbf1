"""The survey group: galaxies, what to inject into them, and the stamps."""

from collections.abc import Iterator

import dagster as dg
import pyarrow as pa

from lens_pipeline.contracts.checks import Check
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.defs.publishing import Event, Metadata, check_specs, markdown_table, picture, publish
from lens_pipeline.defs.sections import (
    InjectionManifestSection,
    ParentSampleSection,
    RealismReportSection,
    StampsSection,
)
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey import checks, gallery
from lens_pipeline.survey.config import Source
from lens_pipeline.survey.parent_sample import ParentSampleResult, build_parent_sample
from lens_pipeline.survey.rendering import find_earlier
from lens_pipeline.survey.role_gallery import roles_png
from lens_pipeline.survey.source_growth import source_only_grew


@dg.asset(group_name="survey", check_specs=check_specs("parent_sample", "galaxies_are_unique", "source_only_grew"))
def parent_sample(
    context: dg.AssetExecutionContext, config: ParentSampleSection, workspace: Workspace
) -> Iterator[Event]:
    """Galaxies that may host an arc: position, region, magnitudes, seeing, depth."""
    before = workspace.open_if_there("parent_sample")
    if before is not None and before.attributes["source"] != config.source.value:
        raise ConfigError(
            f"dataset {workspace.dataset!r} was made from the source {before.attributes['source']}, not {config.source.value}; "
            "two surveys under one name would share a split. Give this one a name of its own: "
            "resources.workspace.config.dataset"
        )
    yield from publish(
        context,
        workspace,
        config,
        inputs=[],
        build=lambda staging: _parents(context, config, staging),
        check=lambda parent, _: [
            checks.galaxies_are_unique(parent),
            source_only_grew(parent, before, config.accept_changes_from),
        ],
        describe=lambda parent, result: {
            "source": dg.MetadataValue.text(parent.attributes["source"]),
            "galaxies": dg.MetadataValue.int(result.n_galaxies),
            "regions": dg.MetadataValue.int(result.n_regions),
            **_left_out_and_assumed(parent),
            **(
                _of_a_catalogue(parent)
                if parent.attributes["source"] == Source.legacy_catalogue.value
                else {"sky_map": picture(gallery.sky_map_png(parent), "sky map of the parent sample")}
            ),
        },
    )


def _parents(context: dg.AssetExecutionContext, config: ParentSampleSection, staging: Staging) -> ParentSampleResult:
    result = build_parent_sample(config, staging)
    if left_out := staging.attributes.get("left_out"):
        said = ", ".join(f"{reason} {n:,}" for reason, n in left_out.items())
        context.log.warning(
            f"{sum(left_out.values()):,} galaxies were left out ({said}); each stands in read_table('parent_sample/left_out')"
        )
    return result


def _left_out_and_assumed(parent: Publication) -> Metadata:
    """Say which galaxies were left out why, and what their files didn't say; where a source has either."""
    facts = parent.attributes
    said: Metadata = {}
    if "left_out" in facts:
        left_out = [{"reason": reason, "galaxies": n} for reason, n in facts["left_out"].items()]
        empty = pa.table({"reason": [], "galaxies": []})
        said["left_out"] = markdown_table(pa.Table.from_pylist(left_out) if left_out else empty)
    if facts.get("assumptions"):
        said["assumed"] = dg.MetadataValue.md("\n".join(f"- {one}" for one in facts["assumptions"]))
    return said


def _of_a_catalogue(parent: Publication) -> Metadata:
    """Say what the selection of a catalogue kept, left out and loses."""
    from lens_pipeline.survey.parent_density import galaxy_density
    from lens_pipeline.survey.parent_gallery import parents_png

    facts = parent.attributes
    pieces = [{"cut": cut["name"], "meaning": cut["meaning"], "rows_that_fail": cut["rows_that_fail"]}
              for cut in facts["selection"]["cuts"]]  # fmt: skip
    density = galaxy_density(parent.entry(f"{parent.asset}.parquet").rows or 0, facts)
    return {
        "selection": dg.MetadataValue.text(f"{facts['selection']['name']}: {facts['selection']['source']}"),
        "rows_read": dg.MetadataValue.int(facts["rows_read"]),
        "galaxies_per_deg2": dg.MetadataValue.float(density.value),
        "galaxies_per_deg2_interval": dg.MetadataValue.text(str(density)),
        "cuts": markdown_table(pa.Table.from_pylist(pieces)),
        "sky_map": picture(parents_png(parent), "where the galaxies are, their colours, and what the selection loses"),
    }


@dg.asset(
    group_name="survey",
    deps=["parent_sample"],
    check_specs=check_specs("injection_manifest", "label_alignment", "pairs_are_sound"),
)
def injection_manifest(
    context: dg.AssetExecutionContext, config: InjectionManifestSection, workspace: Workspace
) -> Iterator[Event]:
    """One row per stamp to make: sample key, galaxy, region, lens model and parameters, or CONTROL."""
    # Imported when it is used: what compiles lenses takes a second to load.
    from lens_pipeline.survey.manifest import build_manifest

    parent = workspace.open("parent_sample")
    yield from publish(
        context,
        workspace,
        config,
        inputs=[parent],
        build=lambda staging: build_manifest(config, parent, staging, context.log.info),
        check=lambda manifest, _: [checks.label_alignment(manifest), checks.pairs_are_sound(manifest)],
        describe=lambda manifest, result: {
            "injections": dg.MetadataValue.int(result.n_injections),
            "controls": dg.MetadataValue.int(result.n_controls),
            **_design(manifest),
        },
    )


def _design(manifest: Publication) -> Metadata:
    """What a drawn manifest shows of its design; a survey's own rows have none."""
    if "hosts" not in manifest.attributes:
        return {}
    # Imported when it is used: what compiles lenses takes a second to load.
    from lens_pipeline.survey.design_report import design_png

    return {
        "population": dg.MetadataValue.text(manifest.attributes["population"]),
        "design": picture(design_png(manifest), "population, drawn and weighted shares, and the resolution expected"),
        **_real_sources(manifest),
    }


def _real_sources(manifest: Publication) -> Metadata:
    """What a manifest that lenses real galaxies shows of them."""
    if "real_sources" not in manifest.attributes:
        return {}
    # Imported when it is used: what compiles lenses takes a second to load.
    from lens_pipeline.survey.source_gallery import sources_png

    left_out = manifest.attributes["real_sources"]["left_out"]
    said = "; ".join(f"{row['galaxy_id']}: {row['reason']}, {row['detail']}" for row in left_out)
    return {
        "real_sources": picture(
            sources_png(manifest), "real galaxies that are lensed, with split and half-light radius"
        ),
        "real_sources_left_out": dg.MetadataValue.text(said or "none"),
    }


@dg.asset(
    group_name="survey",
    deps=["parent_sample", "injection_manifest"],
    check_specs=check_specs("stamps", "label_alignment", "manifest_conservation", "no_fingerprints"),
)
def stamps(context: dg.AssetExecutionContext, config: StampsSection, workspace: Workspace) -> Iterator[Event]:
    """The unified parquet: manifest columns, compressed pixels and quality columns; or the user's own, unchanged."""
    parent = workspace.open("parent_sample")
    manifest = workspace.open_made_from("injection_manifest", "parent_sample", parent.version)
    before = find_earlier(workspace.home, workspace.dataset, manifest)
    # Imported when it is used: what compiles lenses takes a second to load.
    from lens_pipeline.survey.stamps import build_stamps

    yield from publish(
        context,
        workspace,
        config,
        inputs=[parent, manifest],
        build=lambda staging: build_stamps(config, parent, manifest, staging, before, context.log.info),
        check=lambda made, _: [
            checks.label_alignment(made),
            checks.manifest_conservation(made, manifest),
            _no_fingerprints(made, parent),
        ],
        describe=lambda made, result: {
            "dagster/row_count": dg.MetadataValue.int(result.n_rows),
            "fragments": dg.MetadataValue.int(result.n_fragments),
            "rows_taken_over": dg.MetadataValue.int(result.n_taken_over),
            "gallery": picture(gallery.stamps_png(made), "stamps: injections above their controls"),
            **_roles(made, manifest),
        },
    )


def _roles(made: Publication, manifest: Publication) -> Metadata:
    """What stamps show of each role, where there are more than injections and their controls."""
    png = roles_png(made, manifest)
    return {} if png is None else {"roles": picture(png, "stamps of each role, brightest light first")}


def _no_fingerprints(made: Publication, parent: Publication) -> Check:
    # Imported when it is used: what compiles lenses takes a second to load.
    from lens_pipeline.survey.fingerprints import no_fingerprints

    return no_fingerprints(made, parent)


@dg.asset(
    group_name="survey",
    deps=["parent_sample", "stamps"],
    check_specs=check_specs("realism_report", "realism_is_complete"),
)
def realism_report(
    context: dg.AssetExecutionContext, config: RealismReportSection, workspace: Workspace
) -> Iterator[Event]:
    """How stamps compare with the sky and with what was asked for: noise, pixels, arcs, PSF; tables and one HTML page."""
    # Imported when it is used: statistics and what compiles lenses take a second to load.
    from lens_pipeline.survey.realism import PAGE, build_realism, number_words, realism_is_complete

    stamps = workspace.open("stamps")
    parent = workspace.open_version("parent_sample", stamps.inputs["parent_sample"])
    other = workspace.home.open(config.compare_with, "stamps") if config.compare_with else None
    yield from publish(
        context,
        workspace,
        config,
        inputs=[stamps, parent],
        build=lambda staging: build_realism(config, stamps, parent, other, staging),
        check=lambda _, result: [realism_is_complete(result)],
        describe=lambda report, result: {
            "page": dg.MetadataValue.path(str(report.path(PAGE))),
            "curves": picture(result.images["curves"], "noise power, pixel histogram and noise per pixel"),
            "controls": picture(result.images["stamps"], "controls of each dataset"),
            "probes": markdown_table(
                pa.Table.from_pylist(
                    [
                        {"what": row["metric"], "auroc": number_words(row), "note": row["reason"]}
                        for row in result.lines
                        if row["metric"].startswith("probe_")
                    ]
                )
            ),
        },
    )
