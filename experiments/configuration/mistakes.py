"""A mistake in the configuration or on the command line, said in one sentence instead of Hydra's many."""

from __future__ import annotations

import re

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from experiments.configuration.options import CONF, options
from experiments.errors import UserError, one_of

PLUGINS = {
    "hydra/launcher": {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"},
    "hydra/sweeper": {"optuna": "sweeper"},
}
"""Group -> the option that a plugin brings -> the extra of ``pyproject.toml`` that installs it."""

KINDS = {"Float": "a number", "Integer": "a whole number", "Boolean": "true or false", "String": "a text"}
"""OmegaConf's names of types, in words."""


def of_command_line(error: Exception) -> UserError | None:
    """The sentence for what Hydra raised while it read the command line; ``None`` if it is not a user's mistake."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MissingConfigException):
        return _missing_file(error)
    if isinstance(error, OverrideParseException):
        reason = [line for line in error.message.splitlines() if not line.startswith(("See ", "Error parsing"))]
        return UserError(
            f"cannot read '{error.override}' on the command line ({' '.join(reason)}); it takes key=value, with quotes "
            "around values that hold spaces, commas or brackets"
        )
    if isinstance(error, ConfigCompositionException):
        return _composition(error)
    if isinstance(error, OmegaConfBaseException):
        return of_configuration(error)
    if isinstance(error, HydraException) or names_no_key(error):
        return UserError(f"the command line does not compose: {_first_line(error)}")
    return None


def names_no_key(error: Exception) -> bool:
    """Whether Hydra's message does not say which override it is about, so that all of them have to be listed."""
    return str(error).startswith("Config group override must be a string")


def before_any_run(error: Exception, overrides: list[str]) -> UserError:
    """The sentence for whatever else Hydra raised while it composed, before it called the first job."""
    reason = f"{type(error).__name__}: {_first_line(error)}"
    return UserError(f"the command line does not compose ({reason}); look for the mistake in {' '.join(overrides)}")


def of_configuration(error: OmegaConfBaseException) -> UserError:
    """The sentence for a key, a type, a missing value or an interpolation that the configuration does not allow."""
    key = error.full_key or "the configuration"
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        return _unknown_key(error)
    if isinstance(error, InterpolationResolutionError):
        source = re.search(r"Interpolation key '(.+?)' not found|[Mm]issing mandatory value: (\S+)", _first_line(error))
        if source:
            return _without_source(key, source[1] or source[2])
    if isinstance(error, MissingMandatoryValue):
        return UserError(f"'{key}' has no value; give {key}=<value>")
    message = _first_line(error)
    if wrong := re.match(r"Value '(.*)' .*could not be converted to (\w+)", message):
        return UserError(f"'{key}' must be {KINDS.get(wrong[2], wrong[2])}, not '{wrong[1]}'")
    if wrong := re.match(r"Value '(.*)' of type '.*' is incompatible with type hint 'Union\[bool, str\]'", message):
        return UserError(f"'{key}' must be true or false, not '{wrong[1]}'")
    if "does not support deletion" in message:
        return UserError(f"'{key}' cannot be deleted, as a run needs it; leave out ~{key}")
    if "is not a ListConfig" in message:
        return UserError(f"'{key}' must be a list in brackets, as in {key}=[1,2]")
    if "is not Optional" in message:
        return UserError(f"'{key}' must have a value, not null")
    return UserError(f"'{key}' cannot take that value: {message}")


def _without_source(key: str, source: str) -> UserError:
    """The error for a key whose interpolation leads nowhere; a rate that is missing may be due to a wrong name."""
    if key == "_dummy_":  # Hydra's name for the option of a group
        return UserError(f"the option of a group is to be that of '{source}', which has none; give it by its name")
    end = f"'{key}' takes its value from '{source}', which has none; give {key}=<value>"
    table, _, rest = source.partition(".")
    if table == "rates":
        names = rest.rpartition(".")[0]
        data = next((known for known in options()["data"] if names.startswith(f"{known}.")), "")
        if not data:
            return UserError(
                f"{one_of('data set', names.rpartition('.')[0], options()['data'])}; for one of your own: {end}"
            )
        optimizer = names.removeprefix(f"{data}.")
        if optimizer not in options()["optimizer"]:
            return UserError(f"{one_of('optimizer', optimizer, options()['optimizer'])}; for one of your own: {end}")
    return UserError(end)


def _composition(error: ConfigCompositionException) -> UserError:
    message, cause = str(error), error.__cause__ or error.__context__
    if isinstance(cause, OmegaConfBaseException):
        return of_configuration(cause)
    if "raised while composing config:" in message:  # a file's content does not fit what is composed already
        return UserError(f"the configuration does not compose: {' '.join(message.split())}")
    if ambiguous := re.match(r"Ambiguous value for argument '(.+)'", message):
        return UserError(f"'{ambiguous[1]}' gives several values: add -m to sweep over them, or brackets for a list")
    if no_option := re.match(r"You must specify '(.+?)'", message):
        return one_of(f"option of {no_option[1]}", "???", options().get(no_option[1], []))
    if again := re.match(
        r"Multiple values for (\S+)\.|force-add of config groups is not supported: '\+\+(.+?)=", message
    ):
        group = again[1] or again[2]
        return UserError(f"'{group}' has an option already, which {group}=<option>, without a +, replaces")
    if there := re.match(r"Could not append to config. An item is already at '(.+?)'", message):
        return UserError(f"'{there[1]}' has a value already, which {there[1]}=<value>, without a +, replaces")
    if no_match := re.match(r"Could not override '(.+?)'", message):
        return one_of("group", no_match[1], list(options()))
    return UserError(f"the configuration does not compose: {_first_line(error)}")


def _missing_file(error: MissingConfigException) -> UserError:
    """No file for ``group=name``; Hydra knows the options in one folder; here all below the group are listed."""
    group, _, name = (error.missing_cfg_file or "").partition("/")
    if group in options():
        return one_of(f"option of {group}", name, options()[group])
    if missing := re.search(r"Could not (?:find|load) '(hydra/(?:launcher|sweeper))/(.+?)'", str(error)):
        return _missing_plugin(missing[1], missing[2], str(error))
    return UserError(_first_line(error))


def _missing_plugin(group: str, name: str, message: str) -> UserError:
    """The error for a launcher or sweeper that no plugin brings, or a preset of ours that stands on it."""
    known = ["basic", *PLUGINS[group], *(file.stem for file in sorted((CONF / group).glob("*.yaml")))]
    preset = re.search(rf"In '{group}/(.+?)'", message)
    if name not in PLUGINS[group]:
        return one_of(f"option of {group}", name, known)
    of = preset[1] if preset else name
    return UserError(f"{group}={of} needs a plugin of Hydra: pip install -e '.[{PLUGINS[group][name]}]'")


def _unknown_key(error: OmegaConfBaseException) -> UserError:
    """The known names are the keys of the same node, and at the top level also the groups."""
    parent, key = error.parent_node, error.full_key or str(error.key)
    path = key.rpartition(".")[0]
    names = [str(name) for name in parent] if isinstance(parent, DictConfig) and not parent._is_none() else []
    if path:
        return one_of(f"key of {path}", key.removeprefix(f"{path}."), names)
    return one_of("key or group", key, sorted({*names, *options()} - {"hydra"}))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
