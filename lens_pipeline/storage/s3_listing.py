"""One listing of all objects below a prefix, page by page; a listing that contradicts itself is refused."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from lens_pipeline.contracts.errors import ConfigError, first_few
from lens_pipeline.storage.s3_address import Address, ObjectInfo
from lens_pipeline.storage.s3_attempts import Attempts, DamagedError, Patience


def list_once(client: Any, prefix: Address, patience: Patience, *, page: int) -> list[ObjectInfo]:
    """Return the objects below a prefix in the order of their keys.

    Folder markers (empty objects whose key ends with a slash, as consoles make them) are no data and are left out.

    Parameters
    ----------
    page : int
        Most keys in one answer.

    Raises
    ------
    S3Error
        If a page can't be had whole and in order, or a key can't be an address.
    """
    below = f"{prefix.key}/" if prefix.key else ""
    found: list[ObjectInfo] = []
    odd: list[str] = []
    last_key, token = "", ""
    while True:
        attempts = Attempts("listing", prefix, patience)
        answer = attempts.ask(_page(client, prefix.bucket, below, page, token, last_key))
        for entry in answer.get("Contents", []):
            last_key = entry["Key"]
            if last_key.endswith("/") and entry["Size"] == 0:
                continue
            try:
                address = Address(prefix.bucket, last_key)
            except ConfigError:
                odd.append(repr(last_key))
            else:
                found.append(ObjectInfo(address, int(entry["Size"]), str(entry["ETag"]).strip('"')))
        token = answer["NextContinuationToken"] if answer["IsTruncated"] else ""
        if not token:
            break
    if odd:
        raise attempts.error(f"{len(odd)} keys can't be addresses: {first_few(odd)}", "Rename or remove those objects")
    return found


def _page(client: Any, bucket: str, below: str, n_keys: int, token: str, last_key: str) -> Callable[[], dict[str, Any]]:
    def send() -> dict[str, Any]:
        here = {"ContinuationToken": token} if token else {}
        page: dict[str, Any] = client.list_objects_v2(Bucket=bucket, Prefix=below, MaxKeys=n_keys, **here)
        entries = page.get("Contents", [])
        if "IsTruncated" not in page or page.get("KeyCount", len(entries)) != len(entries):
            raise DamagedError("a page that isn't whole")
        if page["IsTruncated"] and page.get("NextContinuationToken") in (None, "", token):
            raise DamagedError("a page that doesn't say where the next begins")
        if not all({"Key", "Size", "ETag"} <= entry.keys() for entry in entries):
            raise DamagedError("a page with entries that aren't whole")
        # Keys are sorted by their bytes: one that isn't above the one before it is repeated, or from another page.
        keys = [last_key.encode(), *(entry["Key"].encode() for entry in entries)]
        if any(key <= before for before, key in pairwise(keys)) or not all(
            key.startswith(below.encode()) for key in keys[1:]
        ):
            raise DamagedError("a page with keys that aren't in order below the prefix")
        return page

    return send
