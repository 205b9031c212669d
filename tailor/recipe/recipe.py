"""The recipe: base x data x objective x method x train x evaluate, validated, frozen, torch-free."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from tailor.core.errors import RecipeError
from tailor.core.runs import write_text
from tailor.recipe.base import HIDDEN, BaseOptions
from tailor.recipe.data import DataOptions
from tailor.recipe.evaluate import EvaluateOptions
from tailor.recipe.methods import METHODS, MethodOptions
from tailor.recipe.objectives import OBJECTIVES
from tailor.recipe.options import Options, from_short_form
from tailor.recipe.train import TrainOptions

SHORT_FORMS = {"base": "name", "data": "train", "method": "name", "objective": "name"}
EMBEDDED = "pocket:"
YAML = (".yaml", ".yml")
DEFAULT_METHOD = "lora"
Anything = TypeVar("Anything", bound=BaseModel)


class RecipeFile(Options):
    """What can be written as a recipe file."""

    output: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values that give the same recipe back."""
        raise NotImplementedError

    def described(self) -> list[str]:
        """What a run folder's name says beside the base."""
        raise NotImplementedError

    def save(self, path: Path) -> None:
        """As YAML, fully spelled out."""
        write_text(path, yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True))


class Recipe(RecipeFile):
    """Everything a run is made from. The recipe a person writes has five keys: base, data, method, evaluate, output."""

    schema_version: Literal[1] = Field(1, alias="schema")
    base: BaseOptions
    data: DataOptions
    objective: Options | Literal["auto"] = Field("auto", description="what the data teaches; auto: by the data's form")
    method: Options = Field(default_factory=METHODS[DEFAULT_METHOD])
    train: TrainOptions = TrainOptions()
    evaluate: EvaluateOptions = EvaluateOptions()
    output: str = Field("runs/auto", description="the run folder; auto: a new one named by base, method and data")

    @model_validator(mode="before")
    @classmethod
    def _known_tables(cls, value: Any) -> Any:
        if isinstance(value, dict):
            value = dict(value)
            for key, table in (("method", METHODS), ("objective", OBJECTIVES)):
                if key in value and value[key] != "auto":
                    value[key] = _choose(value[key], key, table)
        return value

    @field_validator("base", "data", mode="before")
    @classmethod
    def _present(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("is empty")
        return value

    def described(self) -> list[str]:
        """Method and data."""
        source = self.data.train if isinstance(self.data.train, str) else self.data.train[0]
        return [getattr(self.method, "name", ""), Path(source).stem]

    @property
    def split_seed(self) -> int:
        """The seed by which rows are divided: that of the training, where it has none of its own."""
        seed = self.data.split_seed
        return self.train.seed if seed == "auto" else seed

    @property
    def method_options(self) -> MethodOptions:
        """The method's options, with what all methods state."""
        assert isinstance(self.method, MethodOptions)
        return self.method

    def as_dict(self) -> dict[str, Any]:
        """Plain values, every default spelled out; `Recipe.parse` gives the same recipe back."""
        values = self.model_dump(mode="json", by_alias=True, exclude={"method", "objective"})
        values["method"] = self.method.model_dump(mode="json")
        values["objective"] = (
            self.objective if isinstance(self.objective, str) else self.objective.model_dump(mode="json")
        )
        order = ["schema", "base", "data", "objective", "method", "train", "evaluate", "output"]
        return {key: values[key] for key in order}


def _choose(value: Any, key: str, table: Mapping[str, type[Options]]) -> Options:
    if isinstance(value, Options):
        return value
    options = from_short_form(value, "name")
    if isinstance(options, dict) and "name" not in options:
        if key != "method":
            raise RecipeError(
                "this key is missing", where=f"{key}.name", fix=nearest_name("", table), code="missing_key"
            )
        options = {"name": DEFAULT_METHOD, **options}
    name = options.get("name") if isinstance(options, dict) else None
    if name not in table:
        raise RecipeError(
            f"there is no {key} named {name!r}", where=key, fix=nearest_name(str(name), table), code="unknown_name"
        )
    try:
        return table[str(name)].model_validate(options)
    except ValidationError as error:
        raise _explain(error, table[str(name)], prefix=(key,)) from None


def parse(values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values; raises `RecipeError` naming the key and, for an unknown one, the nearest known."""
    return checked(Recipe, values)


def checked(model: type[Anything], values: Mapping[str, Any]) -> Anything:
    """Values as a model; raises `RecipeError` naming the key and, for an unknown one, the nearest known."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise _explain(error, model) from None


def base_options(model: str | Mapping[str, Any]) -> BaseOptions:
    """A model as it is named on the command line or in Python: by its name, as a base's options, or by a YAML file of them.

    In the file they may stand under `base`, so that any recipe will do. Raises `RecipeError` as `parse` does.
    """
    values: Any = model
    if isinstance(model, str) and Path(model).suffix in YAML and Path(model).is_file():
        values = read_yaml(Path(model))
        values = values.get("base", values)
    try:
        return BaseOptions.model_validate(values)
    except ValidationError as error:
        raise _explain(error, BaseOptions, prefix=("base",)) from None


def load(path: Path) -> Recipe:
    """The recipe file of a run with one task."""
    values = read_recipe(path)
    if "tasks" in values:
        raise RecipeError(
            "this run has several tasks", where=str(path), fix=f"name one: {path.parent}/model/heads/NAME", code="tasks"
        )
    return parse(values)


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe file's values, its paths made absolute: inside the file they are relative to it."""
    values = read_yaml(path)
    _anchor(values, path.resolve().parent)
    return values


class _EachKeyOnce(yaml.SafeLoader):
    """YAML forbids a key twice in one mapping; the library takes the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping, its keys checked."""
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        fix = "mend the file at this place"
        raise RecipeError(f"this is not YAML: {getattr(error, 'problem', error)}", where=where, fix=fix) from None
    except FileNotFoundError:
        fix = "name a recipe (.yaml), or a data file"
        raise RecipeError("there is no such recipe", where=str(path), fix=fix, code="missing_file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the recipe cannot be read: {error}", where=str(path)) from None
    if not isinstance(values, dict):
        raise RecipeError("a recipe is a mapping of keys to values", where=str(path), fix="start with `base: …`")
    return values


def override(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Values with `a.b=VALUE` laid over them; VALUE is YAML, paths are relative to the current folder."""
    result: dict[str, Any] = dict(values)
    for text in overrides:
        key, separator, raw = text.partition("=")
        if not separator or not key:
            raise RecipeError(f"{text!r} is no override", where=text, fix="write KEY=VALUE, e.g. train.epochs=2")
        try:
            value = yaml.safe_load(raw)
        except yaml.YAMLError:
            value = raw
        layer: dict[str, Any] = {}
        _put(layer, key.split("."), value if raw[:1] in ('"', "'") else _number(value))
        result = laid_over(result, layer)
    return result


def laid_over(values: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Values with others laid over them, whose paths are relative to the current folder."""
    own: dict[str, Any] = _plain(layer)
    _anchor(own, Path.cwd())
    return _merge(dict(values), own)


def _plain(value: Any) -> Any:
    """What a person may hand over in Python, copied, as YAML would have it."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _number(value: Any) -> Any:
    """YAML 1.1 reads `2e-4` as text; people mean the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value


def _merge(below: dict[str, Any], above: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if depth == 0 and key in SHORT_FORMS and isinstance(value, dict) and old is not None:
            old = from_short_form(old, SHORT_FORMS[key])
        if depth == 0 and key in ("base", "data") and isinstance(old, dict) and not isinstance(value, dict):
            value = from_short_form(value, SHORT_FORMS[key])
        if depth == 0 and key == "base" and isinstance(old, dict) and isinstance(value, dict):
            old = _without_other(old, value)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merge(old, value, depth + 1)
        if isinstance(old, list) and isinstance(value, dict):
            value = _merge_into_list(old, value, key)
        merged[key] = value
    return merged


def _without_other(old: dict[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """A base's options without what names it, where another base is laid over: a name or an endpoint."""
    endpoint = value.get("endpoint")
    named = "name" in value or (isinstance(endpoint, dict) and "model" in endpoint)
    return {key: part for key, part in old.items() if key not in ("name", "endpoint")} if named else old


def _merge_into_list(old: list[Any], above: Mapping[str, Any], key: str) -> list[Any]:
    """`stages.2.train.epochs=1`: elements are counted from 1."""
    merged = list(old)
    for place, value in above.items():
        if not place.isdigit() or not 1 <= int(place) <= len(old):
            raise RecipeError(f"there are {len(old)} {key}", where=f"{key}.{place}", fix=f"{key}.1 is the first")
        merged[int(place) - 1] = _merge(old[int(place) - 1], value)
    return merged


def _anchor(values: dict[str, Any], root: Path) -> None:
    """Make relative paths absolute, in place, where they name something that exists (or will be written)."""
    stages, tasks = values.get("stages"), values.get("tasks")
    for part in [*(stages if isinstance(stages, list) else ()), *(tasks.values() if isinstance(tasks, dict) else ())]:
        if isinstance(part, dict):
            _anchor(part, root)
    for key, short in (("base", "name"), ("data", "train")):
        if isinstance(values.get(key), str | list):
            values[key] = {short: values[key]}
    method = values.get("method")
    if isinstance(method, dict) and isinstance(method.get("proposer"), str):
        method["proposer"] = _existing(method["proposer"], root)
    base, data, output = values.get("base"), values.get("data"), values.get("output")
    evaluate = values.get("evaluate")
    if isinstance(base, dict):
        for key in ("name", "chat_template"):
            if isinstance(base.get(key), str):
                base[key] = _existing(base[key], root)
    if isinstance(data, dict):
        for key in ("train", "dev", "test", "replay"):
            if isinstance(data.get(key), str):
                data[key] = _data_path(data[key], root)
            elif isinstance(data.get(key), list):
                data[key] = [_data_path(item, root) if isinstance(item, str) else item for item in data[key]]
    if isinstance(evaluate, dict) and isinstance(evaluate.get("metrics"), list):
        evaluate["metrics"] = [_scorer_path(name, root) for name in evaluate["metrics"]]
    if isinstance(evaluate, dict) and isinstance(evaluate.get("primary"), str):
        evaluate["primary"] = _scorer_path(evaluate["primary"], root)
    if isinstance(output, str) and output != "runs/auto":
        values["output"] = str((root / Path(output).expanduser()).resolve())


def _existing(name: str, root: Path) -> str:
    path = root / Path(name).expanduser()
    return str(path.resolve()) if not name.startswith(EMBEDDED) and path.exists() else name


def _data_path(name: str, root: Path) -> str:
    """A hub id looks like `owner/name` and has no suffix; all else that is not embedded is a path, existing or not."""
    path = root / Path(name).expanduser()
    if name == "auto" or name.startswith(EMBEDDED):
        return name
    looks_like_hub_id = name.count("/") == 1 and not Path(name).suffix and not name.startswith((".", "/", "~"))
    if looks_like_hub_id and not path.exists():
        return name
    return str(path.parent.resolve() / path.name)


def _scorer_path(name: Any, root: Path) -> Any:
    if " & " in str(name):
        return " & ".join(str(_scorer_path(part, root)) for part in str(name).split(" & "))
    file, separator, function = str(name).rpartition(":")
    return f"{(root / file).resolve()}:{function}" if separator and file.endswith(".py") else name


def nearest_name(name: str, known: Iterable[str]) -> str:
    """What a name was meant to be, or what there is."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def _explain(error: ValidationError, model: type[BaseModel], prefix: tuple[str, ...] = ()) -> RecipeError:
    """Pydantic's first complaint as one line: the key, what is wrong, the nearest known key."""
    first = error.errors()[0]
    location = tuple(str(part) for part in first["loc"])
    where = ".".join(prefix + location)
    group, depth = _group_of(model, location)
    if first["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in group.model_fields.items()]
        return RecipeError("unknown key", where=where, fix=nearest_name(location[-1], known), code="unknown_key")
    if first["type"] == "missing":
        return RecipeError("this key is missing", where=where, fix=f"add `{where}: …`", code="missing_key")
    message = first["msg"].removeprefix("Value error, ")
    shown = first["type"] != HIDDEN and not isinstance(first["input"], dict | BaseModel)
    given = f", not {first['input']!r}" if shown else ""
    # What pydantic puts behind a key is which of its alternatives it tried: no part of the recipe.
    key = location[: depth + 1]
    meant = group.model_fields[key[-1]].description if key and key[-1] in group.model_fields else None
    return RecipeError(
        f"{message[0].lower()}{message[1:]}{given}",
        where=".".join(prefix + key),
        fix=f"{key[-1]}: {meant}" if meant else "`tailor fit --schema` tells what each key takes",
        code="bad_value",
    )


def _group_of(model: type[BaseModel], location: tuple[str, ...]) -> tuple[type[BaseModel], int]:
    """The innermost group of options that a place lies in, and how deep in the recipe that group is."""
    depth = 0
    for part in location[:-1]:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        below = next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
        if below is None:
            break
        model, depth = below, depth + 1
    return model, depth


def schema() -> dict[str, Any]:
    """The JSON schema of a recipe, methods and objectives spelled out as alternatives."""
    whole = Recipe.model_json_schema(by_alias=True)
    definitions = whole.setdefault("$defs", {})
    for key, table in (("method", METHODS), ("objective", OBJECTIVES)):
        alternatives: list[dict[str, Any]] = [{"enum": [*table, *(["auto"] if key == "objective" else [])]}]
        for options in table.values():
            definitions[options.__name__] = options.model_json_schema()
            alternatives.append({"$ref": f"#/$defs/{options.__name__}"})
        whole["properties"][key] = {
            "anyOf": alternatives,
            "description": f"the {key}: a name, or a mapping with `name`",
        }
    definitions.pop("Options", None)
    return whole
