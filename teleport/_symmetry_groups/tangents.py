"""The tangent space of an orbit, and the quantities that gradient flow conserves along it.

A continuous symmetry has generators: logarithms of the factors of channels, and matrices ``X`` on the axes of a vertex.
A generator ``xi`` moves a weight ``W`` by ``(x_out - x_in) W``, by ``X W`` on an axis and by ``-X^T W`` on a dual one.
The loss does not change along any of them, so that its gradient is orthogonal to these moves (Kunin et al. 2021).
For factors and general matrices the moment ``sum W W^T - sum_dual W W^T`` is conserved by gradient flow: incoming less
outgoing squared norms of a channel, ``W_in W_in^T - W_out^T W_out`` of a matrix (Du et al. 2018, Arora et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from teleport._quiver.quiver import Freedom, Scaled
from teleport._symmetry_groups.axis import Level
from teleport._symmetry_groups.find_symmetries import FACTORED, classes_of_units
from teleport._symmetry_groups.places import Generator, Place, places_of
from teleport._symmetry_groups.symmetries import Symmetries

PRODUCTS = 300
"""Of the tangent map with a generator, in one projection at most."""

SETTLED = 1e-6
"""A projection ends where its residual has this share of what it was."""

Tensors = Mapping[str, Tensor]


class TangentSpace:
    """The tangent space of the orbit of a network's continuous symmetries, at any of its parameters.

    Args:
        symmetries: of the network.
        names: of its parameters. Vertices that act on buffers, too, are left out: statistics are not trained.
        scalings: whether factors of channels belong to it, besides those that matrices hold.
        compact: whether rotations do.
    """

    def __init__(
        self, symmetries: Symmetries, names: Collection[str], scalings: bool = True, compact: bool = True
    ) -> None:
        self.symmetries, quiver = symmetries, symmetries.quiver
        self.names = [name for name in names if name in symmetries.axes or name in quiver.scaled]
        self.places: dict[int, list[Place]] = {}
        beside = set()
        for name, axes in symmetries.axes.items():
            for variable, place in places_of(name, axes, symmetries):
                self.places.setdefault(variable, []).append(place)
                beside |= {variable} if name not in names else set()
        for variable in list(self.places):
            if variable in beside or not (compact or symmetries.levels[variable] in FACTORED):
                del self.places[variable]
        held = {0}
        for variable in self.places:
            if symmetries.levels[variable] in FACTORED:  # their matrices hold the factors
                held |= classes_of_units(symmetries.axes, quiver, variable)
        classes, inverse = torch.arange(len(quiver.freedom)), quiver.inverse.cpu()
        second = (inverse >= 0) & (inverse < classes)
        self.of = torch.where(second, inverse, classes)  # the class whose logarithm a class carries
        sign = torch.where(second, -1.0, 1.0).double()
        sign[quiver.freedom.cpu() == Freedom.PINNED] = 0.0
        sign[[one for each in held for one in (each, int(inverse[each])) if one >= 0]] = 0.0
        self.sign = sign if scalings else torch.zeros_like(sign)

    @property
    def moving(self) -> list[str]:
        """The parameters on which anything acts, in order."""
        placed = {place.name for places in self.places.values() for place in places}
        factored = {
            name
            for name, scaled in self.symmetries.quiver.scaled.items()
            if any(bool(self.sign[side.cpu()].any()) for side in (scaled.output_class, scaled.input_class))
        }
        return [name for name in self.names if name in placed | factored]

    def carried(self, logarithms: Tensor) -> Tensor:
        """The logarithm of the factor of each class, ``[classes]``, of which one leads each class and its inverse."""
        return self.sign * logarithms[self.of]

    def identities(self) -> dict[int, Tensor]:
        """The identity matrix of each variable, ``[copies, units, units]``, float64."""
        found = {}
        for variable, (place, *_) in self.places.items():
            *copies, units = (place.block.sizes[at] for at in place.lead)
            device = self.symmetries.quiver.freedom.device
            found[variable] = torch.eye(units, dtype=torch.float64, device=device).repeat(math.prod(copies), 1, 1)
        return found

    @torch.no_grad()
    def multiply(self, parameters: Tensors, logarithms: Tensor) -> None:
        """Multiply tensors in place by the factors of these logarithms, ``[classes]``."""
        carried = self.carried(logarithms)
        for name, scaled in self._scaled(parameters):
            if bool(carried.any()):
                factor = carried[scaled.output_class.cpu()] - carried[scaled.input_class.cpu()]
                parameters[name].mul_(factor.exp().to(parameters[name]))

    @property
    def empty(self) -> bool:
        """Whether the network has no continuous symmetry."""
        return not self.places and not bool(self.sign.any())

    @property
    def dimension(self) -> int:
        """Of the algebra: factors and matrices that act on parameters."""
        of = self.of[self.sign != 0]
        return len(torch.unique(of)) + sum(self._dimension(each) for each in self.places)

    def name_of(self, variable: int) -> str:
        """The first axis on which a variable acts, as an output if there is one."""
        places = self.places[variable]
        first = next((each for each in places if not each.dual), places[0])
        return f"{first.name}[axis {first.block.axes[first.lead[-1]]}]"

    def tangent(self, parameters: Tensors, generator: Generator) -> dict[str, Tensor]:
        """How a generator moves the parameters.

        Args:
            parameters: float64, by name.
            generator: with matrices in the algebra of each variable.
        """
        moves = {name: torch.zeros_like(parameters[name]) for name in self.names}
        carried = self.carried(generator.logarithms)
        for name, scaled in self._scaled(parameters):
            factor = carried[scaled.output_class.cpu()] - carried[scaled.input_class.cpu()]
            moves[name] += parameters[name] * factor.to(parameters[name])
        for variable, places in self.places.items():
            matrix = generator.matrices[variable]
            for place in places:
                values = place.values(parameters)
                place.add(moves, torch.bmm((-matrix.mT if place.dual else matrix).to(values), values))
        return moves

    def adjoint(self, parameters: Tensors, moves: Tensors) -> Generator:
        """The inner products of moves with how each generator moves the parameters."""
        return Generator(self._by_class(parameters, moves), self._by_matrix(parameters, moves, algebra=True))

    def moments(self, parameters: Tensors) -> Generator:
        """What gradient flow conserves: of factors, ``[classes]``, and of the symmetric part of general matrices."""
        found = self._by_matrix(parameters, parameters, algebra=False)
        kept = {each: of for each, of in found.items() if self.symmetries.levels[each] in FACTORED}
        return Generator(
            self._by_class(parameters, parameters), {each: self._kept(each, of) for each, of in kept.items()}
        )

    def sizes(self, parameters: Tensors) -> Generator:
        """What the moments are relative to: sums of both sides, ``[classes]`` and ``[copies, 1, 1]``."""
        both = torch.zeros_like(self.sign)
        for name, scaled in self._scaled(parameters):
            for side in (scaled.output_class.cpu(), scaled.input_class.cpu()):
                both.index_add_(0, side.flatten(), _summed(parameters[name].square(), side).flatten())
        both = torch.zeros_like(both).index_add(0, self.of, self.sign.abs() * both)
        matrices = {}
        for variable, places in self.places.items():
            if self.symmetries.levels[variable] in FACTORED:
                one, other = (_total(self._gram(places, parameters, dual)) for dual in (False, True))
                matrices[variable] = one + other
        return Generator(both, matrices)

    def share(self, parameters: Tensors, moves: Tensors, smallest: float = 1e-13) -> float:
        """The norm of the tangent component of moves, relative to that of the moves; by conjugate gradients (CGLS).

        Args:
            parameters: float64, by name.
            moves: a gradient or an update, float64, by name.
            smallest: a component along the normalised generators that is shorter, relative to the moves, is rounding,
                and its own length is the result.
        """
        rest = {name: moves[name].clone() for name in self.names}
        whole = norm(moves)
        if self.empty or not whole:
            return 0.0
        scale = self._scale(parameters)
        slope = self.adjoint(parameters, rest)
        scaled = slope.divided(scale)
        old = first = slope.inner(scaled)
        if not old**0.5 > smallest * whole:
            return math.sqrt(max(old, 0.0)) / whole
        direction, inside = scaled, {name: torch.zeros_like(each) for name, each in rest.items()}
        for _ in range(PRODUCTS):
            image = self.tangent(parameters, direction)
            length = norm(image) ** 2
            if not length > 0:
                break
            for name, each in image.items():
                inside[name] += old / length * each
                rest[name] -= old / length * each
            slope = self.adjoint(parameters, rest)
            scaled = slope.divided(scale)
            new = slope.inner(scaled)
            if not new**0.5 > max(SETTLED * first**0.5, smallest * whole):
                break
            direction, old = scaled.combined(new / old, direction), new
        return min(1.0, norm(inside) / whole)

    def _scaled(self, tensors: Tensors) -> Iterator[tuple[str, Scaled]]:
        """The parameters that factors multiply, of those among ``tensors``."""
        for name, scaled in self.symmetries.quiver.scaled.items():
            if name in tensors:
                yield name, scaled

    def _dimension(self, variable: int) -> int:
        *copies, units = (self.places[variable][0].block.sizes[at] for at in self.places[variable][0].lead)
        each = {
            Level.TURN: 1,
            Level.SCALED_TURN: 2,
            Level.CENTERED: (units - 1) * (units - 2) // 2,
            Level.ORTHOGONAL: units * (units - 1) // 2,
        }
        return math.prod(copies) * each.get(self.symmetries.levels[variable], units**2)

    def _scale(self, parameters: Tensors) -> Generator:
        """The diagonal of the normal equations; one number per copy where the algebra does not have all entries."""
        logarithms = self.sizes(parameters).logarithms
        matrices = {}
        for variable, places in self.places.items():
            own, dual = (self._gram(places, parameters, each) for each in (False, True))
            columns, rows = _diagonal(own)[:, None, :], _diagonal(dual)[:, :, None]
            each = columns + rows
            if self.symmetries.levels[variable] == Level.ORTHOGONAL:
                each = (each + each.mT) / 2
            elif self.symmetries.levels[variable] != Level.GENERAL:
                each = each.mean((1, 2), keepdim=True).expand_as(each)
            matrices[variable] = torch.where(each > 0, each, 1.0)
        return Generator(torch.where(logarithms > 0, logarithms, 1.0), matrices)

    def _by_class(self, parameters: Tensors, moves: Tensors) -> Tensor:
        found = torch.zeros_like(self.sign)
        for name, scaled in self._scaled(parameters):
            product = parameters[name] * moves[name]
            for side, sign in ((scaled.output_class.cpu(), 1.0), (scaled.input_class.cpu(), -1.0)):
                found.index_add_(0, side.flatten(), sign * _summed(product, side).flatten())
        return torch.zeros_like(found).index_add(0, self.of, self.sign * found)

    def _by_matrix(self, parameters: Tensors, moves: Tensors, algebra: bool) -> dict[int, Tensor]:
        found = {}
        for variable, places in self.places.items():
            total: Tensor | None = None
            for place in places:
                one, other = place.values(moves), place.values(parameters)
                product = torch.bmm(other, -one.mT) if place.dual else torch.bmm(one, other.mT)
                total = product if total is None else total + product
            assert total is not None
            found[variable] = self._projected(variable, total) if algebra else total
        return found

    def _projected(self, variable: int, matrix: Tensor) -> Tensor:
        """The nearest matrix of the algebra of a variable."""
        level = self.symmetries.levels[variable]
        if level == Level.GENERAL:
            return matrix
        if level == Level.CENTERED:
            matrix = matrix - matrix.mean(1, keepdim=True)
            matrix = matrix - matrix.mean(2, keepdim=True)
        turned = (matrix - matrix.mT) / 2
        return turned + self._kept(variable, matrix) if level == Level.SCALED_TURN else turned

    def _kept(self, variable: int, matrix: Tensor) -> Tensor:
        """The part of a moment that is conserved: its trace where the group has one factor, else all of it."""
        if self.symmetries.levels[variable] == Level.GENERAL:
            return matrix
        units = matrix.shape[1]
        return torch.eye(units).to(matrix) * _diagonal(matrix).mean(1)[:, None, None]

    def _gram(self, places: list[Place], parameters: Tensors, dual: bool) -> Tensor:
        values = [(place.values(parameters), place.dual) for place in places]
        shape = values[0][0]
        total = shape.new_zeros(shape.shape[0], shape.shape[1], shape.shape[1])
        for each, is_dual in values:
            if is_dual == dual:
                total = total + torch.bmm(each, each.mT)
        return total


def _summed(values: Tensor, side: Tensor) -> Tensor:
    """Values summed over the axes along which a side's classes do not vary."""
    shape = (1,) * (values.dim() - side.dim()) + tuple(side.shape)
    return values.sum_to_size(shape).cpu()


def _diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1)


def _total(matrix: Tensor) -> Tensor:
    return matrix.square().sum((1, 2), keepdim=True).sqrt()


def norm(tensors: Tensors) -> float:
    """The Euclidean norm of all elements together."""
    return math.sqrt(sum(float(each.square().sum()) for each in tensors.values()))


def smallest_share(parameters: Iterable[Tensor]) -> float:
    """What :meth:`TangentSpace.share` takes for rounding in parameters of this precision."""
    return 1e-13 if all(each.dtype == torch.float64 for each in parameters) else 1e-5
