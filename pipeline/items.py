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
        product = source.profile.product_of(item.get("collection"))
        keys = set(product.keys if product else item["assets"])
        links = [link for link in item.get("links", []) if link.get("rel") == "self"]
        here = links[0]["href"] if links else ""
        assets = {
            key: {**asset, "href": unsigned(urljoin(here, asset["href"]))}
            for key, asset in item["assets"].items()
            if key in keys
        }
        kept.append(pystac_item({**item, "assets": assets, "links": links}))
    return pystac.ItemCollection(kept, clone_items=False)


def pystac_item(item: Mapping[str, Any]) -> pystac.Item:
    """A pystac Item from JSON, without warnings about hrefs that no storage extension can parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pystac.Item.from_dict(dict(item))


def sha256(items: pystac.ItemCollection) -> str:
    """Hash of an item collection, the same before and after it is written to JSON and read back."""
    return fingerprint(json.loads(json.dumps([item.to_dict(transform_hrefs=False) for item in items])))


def is_simulated(item: Mapping[str, Any]) -> bool:
    """Whether an item says that it is simulated (property `simulated` or `marstfn:simulated`)."""
    properties = item["properties"]
    return properties.get("simulated", properties.get("marstfn:simulated")) is True
