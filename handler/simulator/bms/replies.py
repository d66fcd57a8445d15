"""The envelopes of the BMS API: successful answers, and errors with their codes.

Codes and statuses are those of the error tables of OTC's BMS and ECS; the texts are our own.
"""

import json

from handler.simulator import gateway
from handler.simulator.messages import Answer, phrase

MESSAGES = {
    "BMS.0001": "The body of the request cannot be parsed.",
    "BMS.0018": "The request is not valid.",
    "BMS.0035": "The server is being powered on, and the action is refused.",
    "BMS.0036": "The server is being powered off, and the action is refused.",
    "BMS.0037": "The server is being restarted, and the action is refused.",
    "BMS.0039": "The server is powered off already.",
    "BMS.0040": "The server does not exist.",
    "BMS.0212": "The system is overloaded.",
    "BMS.0288": "The policy does not allow this action.",
    "BMS.1007": "An internal call failed.",
    "Common.0011": "The job id is not valid.",
    "Common.0018": "The project of the token is not the project of the URL.",
    "Ecs.0100": "The state of the server does not allow this action.",
    "Ecs.0605": "The server is locked.",
}
_CODES = {400: "BMS.0018", 403: "BMS.0288", 404: "BMS.0040"}


class BmsError(Exception):
    """The BMS API refuses a request.

    Args:
        status: the HTTP status.
        code: of the error body.
        flat: code and message are at the top of the body.
    """

    def __init__(self, status: int, code: str, *, flat: bool = False) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.flat = flat


def words_for(code: str) -> str:
    """Return what a code means."""
    return MESSAGES.get(code, f"Error {code}.")


def error_body(code: str, message: str | None = None, *, flat: bool = False) -> str:
    """Return the body of an error; the message is the usual one of the code unless given."""
    error = {"code": code, "message": message or words_for(code)}
    return json.dumps(error if flat else {"error": error})


def reply(request_id: str, document: object, acted_on: tuple[str, ...] = ()) -> Answer:
    """Return a successful answer.

    Args:
        request_id: of the request.
        document: the body, before it is encoded.
        acted_on: the ids of the servers that the request stopped.
    """
    return gateway.answer(request_id, 200, json.dumps(document).encode(), acted_on=acted_on)


def refuse(request_id: str, error: BmsError) -> Answer:
    """Return an error of the BMS API."""
    return gateway.answer(request_id, error.status, error_body(error.code, flat=error.flat).encode())


def refuse_with_status(request_id: str, status: int, message: str | None) -> Answer:
    """Return an error in the form of the gateway or of the BMS API behind it, whichever answers the status."""
    if code := gateway.code_for(status):
        return gateway.refuse(request_id, status, code, message)
    body = error_body(_CODES.get(status, "BMS.1007"), message or f"{phrase(status)}.")
    return gateway.answer(request_id, status, body.encode())
