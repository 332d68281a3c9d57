"""Errors of pydantic as lines for people."""

from pydantic import BaseModel, ValidationError

from foldsmith.errors import one_line
from foldsmith.utils.suggest import did_you_mean


def validation_message(origin: str, error: ValidationError, model: type[BaseModel]) -> str:
    """Turn pydantic's report into one line per problem, with file and key.

    Args:
        origin: File (and section) that was checked.
        error: pydantic's report.
        model: The class that was checked, for the accepted keys.
    """
    lines = []
    for problem in error.errors():
        key = "/".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            owner = _model_at(model, problem["loc"][:-1])
            hint = did_you_mean(str(problem["loc"][-1]), owner.model_fields)
            lines.append(f"{origin}: unknown key {key}{hint}")
        elif problem["type"] == "missing":
            lines.append(f"{origin}: the key {key} is missing")
        else:
            text = one_line(problem["msg"]).removeprefix("Value error, ")
            lines.append(f"{origin}: {key}: {text}" if key else f"{origin}: {text}")
    return "\n".join(lines)


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type):
            return model
        if issubclass(field.annotation, BaseModel):
            model = field.annotation
    return model
