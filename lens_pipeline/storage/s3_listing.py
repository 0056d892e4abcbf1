"""One listing of all objects below a prefix, page by page; a listing that contradicts itself is refused."""

from collections.abc import Callable
from typing import Any

from lens_pipeline.contracts.errors import ConfigError, first_few
from lens_pipeline.storage.s3_address import Address, ObjectInfo
from lens_pipeline.storage.s3_attempts import Attempts, DamagedError, Patience


def list_once(client: Any, prefix: Address, patience: Patience) -> list[ObjectInfo]:
    """Return the objects below a prefix in the order of their keys.

    Folder markers (empty objects whose key ends with a slash, as consoles make them) are no data and are left out.

    Raises
    ------
    S3Error
        If a page couldn't be read, a key comes twice or out of order, or a key can't be an address.
    """
    below = f"{prefix.key}/" if prefix.key else ""
    found: list[ObjectInfo] = []
    odd: list[str] = []
    last_key, token = "", ""
    while True:
        attempts = Attempts("listing", prefix, patience)
        page = attempts.ask(_page(client, prefix.bucket, below, token))
        for entry in page.get("Contents", []):
            key = entry["Key"]
            # Keys are sorted by their bytes: one that isn't above the one before it is repeated or from another page.
            if key.encode() <= last_key.encode() or not key.startswith(below):
                raise attempts.error(f"{key!r} came after {last_key!r}", "The server's pages are torn: try again later")
            last_key = key
            if key.endswith("/") and entry["Size"] == 0:
                continue
            try:
                found.append(ObjectInfo(Address(prefix.bucket, key), int(entry["Size"]), str(entry["ETag"]).strip('"')))
            except ConfigError:
                odd.append(repr(key))
        token = page["NextContinuationToken"] if page["IsTruncated"] else ""
        if not token:
            break
    if odd:
        raise attempts.error(f"{len(odd)} keys can't be addresses: {first_few(odd)}", "Rename or remove those objects")
    return found


def _page(client: Any, bucket: str, below: str, token: str) -> Callable[[], dict[str, Any]]:
    def send() -> dict[str, Any]:
        page = client.list_objects_v2(Bucket=bucket, Prefix=below, **({"ContinuationToken": token} if token else {}))
        entries = page.get("Contents", [])
        if "IsTruncated" not in page or page.get("KeyCount", len(entries)) != len(entries):
            raise DamagedError("a page that isn't whole")
        if page["IsTruncated"] and (not page.get("NextContinuationToken") or page["NextContinuationToken"] == token):
            raise DamagedError("a page that doesn't say where the next begins")
        if not all({"Key", "Size", "ETag"} <= entry.keys() for entry in entries):
            raise DamagedError("a page with entries that aren't whole")
        return dict(page)

    return send
