"""The operation and the servers of a request, by its method, path and body."""

from handler.simulator.bms.api import BmsResource, bms_route, ids_in, is_bms
from handler.simulator.calls import Api, CallKind
from handler.simulator.compute.api import is_stop
from handler.simulator.compute.routes import Resource, base_of, route
from handler.simulator.messages import Request
from handler.simulator.smn import is_publish, is_smn


def api_of(request: Request) -> Api:
    """Return the API of a request in a cloud that has all of them."""
    if is_smn(request.path):
        return Api.SMN
    if base_of(request.path):
        return Api.NOVA
    return Api.BMS if is_bms(request.path) else Api.KEYSTONE


def kind_of(api: Api, request: Request) -> CallKind:
    """Return the operation that a request to an API asks for."""
    match api:
        case Api.NOVA:
            return _nova_kind(request)
        case Api.BMS:
            return _bms_kind(request)
        case Api.SMN:
            return CallKind.PUBLISH if is_publish(request) else CallKind.OTHER
    return _keystone_kind(request)


def named_in(api: Api, request: Request) -> list[str]:
    """Return the ids of the servers in a request to an API, in the caller's spelling."""
    match api:
        case Api.NOVA:
            where = route(request.method, request.path)
            return [where.server_id] if where and where.server_id else []
        case Api.BMS:
            found = bms_route(request.method, request.path)
            if found and found.resource is BmsResource.ACTION:
                return ids_in(request)
            return [found.id] if found and found.resource is BmsResource.SERVER else []
    return []


def _nova_kind(request: Request) -> CallKind:
    where = route(request.method, request.path)
    if where is None:
        return CallKind.OTHER
    match where.resource:
        case Resource.VERSIONS | Resource.VERSION:
            return CallKind.VERSION
        case Resource.SERVERS | Resource.DETAIL:
            return CallKind.LIST
        case Resource.SERVER if request.method == "GET":
            return CallKind.READ
        case Resource.RECORDS | Resource.RECORD:
            return CallKind.ACTIONS
        case Resource.ACTION if is_stop(request):
            return CallKind.STOP
        case Resource.METADATA | Resource.METADATA_ITEM:
            return CallKind.METADATA
    return CallKind.OTHER


def _bms_kind(request: Request) -> CallKind:
    where = bms_route(request.method, request.path)
    match where and where.resource:
        case BmsResource.SERVER:
            return CallKind.READ
        case BmsResource.DETAIL:
            return CallKind.LIST
        case BmsResource.JOB:
            return CallKind.JOB
        case BmsResource.ACTION if is_stop(request):
            return CallKind.STOP
    return CallKind.OTHER


def _keystone_kind(request: Request) -> CallKind:
    match request.method, request.path.rstrip("/"):
        case "POST", "/v3/auth/tokens":
            return CallKind.LOGIN
        case "DELETE", "/v3/auth/tokens":
            return CallKind.REVOKE
        case "GET", ("" | "/v3"):
            return CallKind.VERSION
    return CallKind.OTHER
