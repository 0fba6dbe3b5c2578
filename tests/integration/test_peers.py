"""The node between real peers: Redis as broker, PostgreSQL as database, Orthanc and dcmqrscp as PACS."""

import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian

from node.mammography.views import LMLO, RCC
from node.settings import password_variable
from tests import mammograms
from tests.running_node import DICOM_DESTINATION, DICOMWEB_DESTINATION, RunningNode, running_node
from tests.servers import Running, dcmqrscp, orthanc, postgresql, redis

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")


@dataclass
class Site:
    """A node and its peers."""

    node: RunningNode
    by_c_store: Running
    by_stow: Running
    archive: Running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as stack:
        by_c_store, by_stow = stack.enter_context(orthanc()), stack.enter_context(orthanc("STOWED"))
        archive = stack.enter_context(dcmqrscp())
        destinations = DICOM_DESTINATION.format(name="orthanc", port=by_c_store.port, ae_title="ORTHANC")
        destinations += DICOM_DESTINATION.format(name="archive", port=archive.port, ae_title="QRSCP")
        web = {"name": "web-pacs", "url": by_stow.dicomweb_url, "username": by_stow.username}
        node = stack.enter_context(
            running_node(
                tmp_path_factory.mktemp("site"),
                destinations + DICOMWEB_DESTINATION.format(**web),
                {password_variable("web-pacs"): by_stow.password},
                database_url=stack.enter_context(postgresql()),
                broker_url=stack.enter_context(redis()),
            )
        )
        yield Site(node, by_c_store, by_stow, archive)


def _held_by_orthanc(pacs: Running) -> dict[str, Dataset]:
    """SOP Instance UID to the object as Orthanc gives it back."""
    with httpx.Client(base_url=pacs.http_url, auth=(pacs.username, pacs.password)) as client:
        files = [client.get(f"/instances/{name}/file").content for name in client.get("/instances").json()]
    datasets = [dcmread(io.BytesIO(content)) for content in files]
    return {str(dataset.SOPInstanceUID): dataset for dataset in datasets}


def test_results_reach_every_kind_of_destination_unchanged(site: Site) -> None:
    images = mammograms.exam(bright=[RCC, LMLO])
    mammograms.send(images, site.node.port)
    said = site.node.wait_for(str(images[0].StudyInstanceUID), "read")
    kept = {
        str(dcmread(result["path"]).SOPInstanceUID): dcmread(result["path"]) for result in said["reading"]["results"]
    }
    statuses = {(delivery["destination"], delivery["kind"], delivery["status"]) for delivery in said["deliveries"]}
    names = ("orthanc", "archive", "web-pacs")
    assert statuses == {(name, kind, "sent") for name in names for kind in ("SR", "SEG", "SC")}
    in_archive = [dcmread(path) for path in site.archive.folder.iterdir() if path.name != "index.dat"]
    assert {dataset.file_meta.TransferSyntaxUID for dataset in in_archive} == {ExplicitVRLittleEndian}
    for held in (
        _held_by_orthanc(site.by_c_store),
        _held_by_orthanc(site.by_stow),
        {str(dataset.SOPInstanceUID): dataset for dataset in in_archive},
    ):
        assert held.keys() == kept.keys()
        assert all(held[uid] == kept[uid] for uid in kept)
