"""The STAC items of a plan as they are frozen beside it: what a run reads and no more, without secrets."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urljoin

import pystac

from pipeline.hrefs import unsigned
from pipeline.plan import fingerprint
from pipeline.profiles import Source


def collection(items: Iterable[Mapping[str, Any]], source: Source) -> pystac.ItemCollection:
    """Items as served, in order of id, with only the assets a run reads; hrefs absolute and unsigned."""
    kept = []
    for item in sorted(items, key=lambda i: str(i["id"])):
        serving = [product for role in source.roles if (product := source.product_of(item, role)) is not None]
        keys = {key for product in serving for key in product.keys} if serving else set(item["assets"])
        links = [link for link in item.get("links", []) if link.get("rel") == "self"]
        here = links[0]["href"] if links else ""
        assets = {}
        for key, asset in item["assets"].items():
            if key in keys:
                href = serving[0].access.href(asset) if serving else asset["href"]
                # the other addresses may be signed, too, and nothing reads them
                kept_fields = {name: value for name, value in asset.items() if name != "alternate"}
                assets[key] = {**kept_fields, "href": _absolute(here, href)}
        kept.append(pystac_item({**item, "assets": assets, "links": links}))
    return pystac.ItemCollection(kept, clone_items=False)


def _absolute(here: str, href: str) -> str:
    """`href` beside `here`, without secrets; `urljoin` does not know s3."""
    if "://" in href or href.startswith("/vsi"):
        return unsigned(href)
    if here.startswith("s3://"):
        return unsigned("s3" + urljoin("http" + here.removeprefix("s3"), href).removeprefix("http"))
    return unsigned(urljoin(here, href))


def pystac_item(item: Mapping[str, Any]) -> pystac.Item:
    """A pystac Item from JSON, without warnings about hrefs that no storage extension can parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # pystac copies what it is given, and its copy takes five times as long
        return pystac.Item.from_dict(_copied(item), preserve_dict=False)


def _copied(value: Any) -> Any:
    """JSON with dictionaries and lists of its own."""
    if isinstance(value, Mapping):
        return {key: _copied(part) for key, part in value.items()}
    return [_copied(part) for part in value] if isinstance(value, list) else value


def sha256(items: pystac.ItemCollection) -> str:
    """Hash of an item collection, the same before and after it is written to JSON and read back."""
    return fingerprint(json.loads(json.dumps([item.to_dict(transform_hrefs=False) for item in items])))


def is_simulated(item: Mapping[str, Any]) -> bool:
    """Whether an item says that it is simulated (property `simulated` or `marstfn:simulated`)."""
    properties = item["properties"]
    return properties.get("simulated", properties.get("marstfn:simulated")) is True
