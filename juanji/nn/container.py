"""Modules made of modules: one after the other, or just held."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from juanji.errors import ArgumentError, ShapeError, UnknownNameError
from juanji.nn.module import Module

Self = TypeVar("Self", bound="Container")


def named(name: str, modules: tuple[Any, ...]) -> dict[str, Module]:
    """Modules by name from positional ones ("0", "1", …), one dictionary, or (name, module) pairs."""
    if len(modules) == 1 and isinstance(modules[0], Mapping):
        pairs = list(modules[0].items())
    elif len(modules) == 1 and not isinstance(modules[0], Module) and isinstance(modules[0], Iterable):
        items = list(modules[0])
        pairs = [item if isinstance(item, tuple) else (str(i), item) for i, item in enumerate(items)]
    else:
        pairs = [(str(i), module) for i, module in enumerate(modules)]
    for key, module in pairs:
        if not isinstance(module, Module):
            raise ArgumentError(
                f"{name}: not a module",
                received=f"{key}: {module!r}",
                rule="instances of Module",
                fix=as_module(module),
            )
    return dict(pairs)


def as_module(value: Any) -> str:
    """The layer that is meant by its class or by the function of its name, `nn.ReLU()` by `jj.relu`."""
    from juanji import nn

    wanted = getattr(value, "__name__", "").replace("_", "").lower()
    return next((f"nn.{layer}()" for layer in nn.__all__ if layer.lower() == wanted), "")


class Container(Module):
    """Holds modules under names, in order. Takes them as arguments, a dictionary, or (name, module) pairs."""

    def __init__(self, *modules: Any) -> None:
        for key, module in named(self.class_name, modules).items():
            self.put(key, module)

    def put(self, key: str, module: Module) -> None:
        """Hold `module` under `key`. Raises ArgumentError for a key that cannot be in a path or hides an attribute."""
        if not key or "." in key or (key not in self._children and hasattr(self, key)):
            raise ArgumentError(
                f"{self.class_name}: this name cannot be used",
                received=repr(key),
                rule="not empty, no full stop, no attribute of modules",
            )
        setattr(self, key, module)

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._children.values())

    def __contains__(self, key: object) -> bool:
        return key in self._children

    def items(self) -> Iterator[tuple[str, Any]]:
        return iter(self._children.items())

    def __getitem__(self, key: int | slice | str) -> Any:
        """By name, by place, or a slice: a container of the same kind that shares the modules."""
        if isinstance(key, slice):
            return Container.of(type(self), list(self._children.items())[key])
        if isinstance(key, str):
            if key not in self._children:
                raise UnknownNameError(
                    f"{self.class_name} holds no {key!r}", received=repr(key), rule=", ".join(self._children)
                )
            return self._children[key]
        places = list(self._children.values())
        if not -len(places) <= key < len(places):
            raise IndexError(f"there is no module {key}: {self.class_name} holds {len(places)}")
        return places[key]

    def __setitem__(self, key: int | str, module: Module) -> None:
        """Hold `module` in the place of another, which is told by its name or its place."""
        ((_, checked),) = named(self.class_name, (module,)).items()
        _ = self[key]  # which raises where there is none
        self.put(key if isinstance(key, str) else list(self._children)[operator.index(key)], checked)

    @staticmethod
    def of(kind: type[Self], pairs: Iterable[tuple[str, Any]]) -> Self:
        """A container that shares modules, which keep their paths."""
        container = kind.__new__(kind)
        container._children.update(pairs)
        return container

    def append(self: Self, module: Module) -> Self:
        """Add `module` at the end, under the next number. Returns the container."""
        ((_, checked),) = named(self.class_name, (module,)).items()
        self.put(str(len(self)), checked)
        return self


class Sequential(Container):
    """Modules one after the other: y = f_L(…f₂(f₁(x))) (002 eq. 2.3)."""

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x


class ModuleList(Container):
    """A list of modules for a `forward` of your own to call; each speaks its full path, `blocks.0`."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__(list(modules))


class ModuleDict(ModuleList):
    """A dictionary of modules for a `forward` of your own to call."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        Container.__init__(self, modules or {})

    def __setitem__(self, key: int | str, module: Module) -> None:
        """Hold `module` under a name, whether there is one already or not."""
        self.put(str(key), module)


def same_sizes(name: str, shapes: list[tuple[int, ...]], rule: str, fix: str) -> None:
    """Raise ShapeError unless all shapes are equal."""
    if len(set(shapes)) > 1:
        raise ShapeError(f"{name}: the shapes differ", received=", ".join(map(str, shapes)), rule=rule, fix=fix)
