"""stub"""

from prefect import flow


@flow(name="fuse-year")
def fuse_year(aoi: str, base: str | None = None) -> str:
    """Fuse.

    Args:
        aoi: the area
        base: folder
    """
    import os

    print("cwd", os.getcwd(), aoi, base)
    return aoi
