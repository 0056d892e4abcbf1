"""One object sent, with the checksum by which the server refuses damaged bytes."""

import base64
import contextlib
import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage.progress import WORTH_A_BAR, ShownFile, progress
from lens_pipeline.storage.s3_address import Address
from lens_pipeline.storage.s3_reading import PIECE, etag_of, status_of


def examine(content: bytes | Path, sha256: str) -> tuple[int, bytes]:
    """Read what is about to be sent; return its size in bytes and its MD5.

    Raises
    ------
    StorageError
        If its SHA-256 is another one.
    """
    found, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with open(content, "rb") if isinstance(content, Path) else BytesIO(content) as file:
        while piece := file.read(PIECE):
            found.update(piece)
            md5.update(piece)
            size += len(piece)
    if found.hexdigest() != sha256:
        where = content if isinstance(content, Path) else "the content"
        raise StorageError(
            f"{where} has a SHA-256 that starts with {found.hexdigest()[:12]}, {sha256[:12]} was to be published: it changed "
            "after it was hashed. Nothing was sent; make it again."
        )
    return size, md5.digest()


def put(client: Any, address: Address, content: bytes | Path, size: int, md5: bytes) -> str | None:
    """Send an object once, to be made only if there is none of its name.

    Returns
    -------
    str or None
        The ETag that the server answers, empty if it gives none; None if an object is there already.
    """
    from botocore.exceptions import ClientError

    with contextlib.ExitStack() as stack:
        body: Any = content
        if isinstance(content, Path):
            bar = stack.enter_context(progress(f"writing {address.name}", size, is_bytes=True, at_least=WORTH_A_BAR))
            body = stack.enter_context(ShownFile(content, bar))
        try:
            answer = client.put_object(
                Bucket=address.bucket,
                Key=address.key,
                Body=body,
                ContentLength=size,
                ContentMD5=base64.b64encode(md5).decode(),
                IfNoneMatch="*",
            )
        except ClientError as error:
            if status_of(error) == 412:
                return None
            raise
    return etag_of(answer)
