"""A compiled step: fetches resolved once, run many times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import FeedError
from graphc.node import Tensor
from runtime.feeds import Extras, FeedPlan, convert
from runtime.fetches import Fetches
from runtime.store import ParameterStore

if TYPE_CHECKING:
    from runtime.session import Program, Session


class Step:
    """Fetches compiled for one session. Call it with one array per placeholder, in the order of ``feeds``."""

    def __init__(
        self,
        session: Session,
        fetches: Fetches,
        plan: FeedPlan,
        program: Program,
        store: ParameterStore,
        feeds: Sequence[Tensor] | None = None,
    ) -> None:
        self._session = session
        self._fetches = fetches
        self._plan = plan
        self._program = program
        self._store = store
        self.feeds: tuple[Tensor, ...] = tuple(
            feeds if feeds is not None else sorted(plan.placeholders, key=lambda t: t.node.serial)
        )
        place = {t: i for i, t in enumerate(self.feeds)}
        self._order = tuple(place[t] for t in plan.placeholders if t in place)
        self._unread = tuple(sorted(set(range(len(self.feeds))) - set(self._order)))
        self.runs = 0

    @property
    def kernels(self) -> Sequence[Any]:
        """The kernels of the compiled program, in the order in which they run."""
        return self._program.kernels

    @property
    def program(self) -> Program:
        """The backend's program."""
        return self._program

    def ordered(self, feeds: Sequence[Tensor | str] | Tensor | str) -> Step:
        """The same program, called with arrays for ``feeds`` in that order."""
        targets: dict[Tensor, None] = {}
        for key in [feeds] if isinstance(feeds, (str, Tensor)) else feeds:
            target = self._plan.target(key)
            if target in targets:
                raise FeedError(f"compile: placeholder {target.name!r} appears twice in feeds")
            targets[target] = None
        missing = [t for t in self._plan.placeholders if t not in targets]
        if missing:
            lines = "".join(f"\n    {t.describe()}" for t in missing)
            raise FeedError(f"compile: the fetches need placeholders that feeds= does not list:{lines}")
        return Step(self._session, self._fetches, self._plan, self._program, self._store, tuple(targets))

    def __call__(self, *arrays: Any) -> Any:
        """Run with one array per placeholder of ``feeds``. As ``Session.run``, but nothing is looked up."""
        if len(arrays) != len(self.feeds):
            names = ", ".join(t.name for t in self.feeds)
            raise FeedError(f"this step takes {len(self.feeds)} arrays ({names}), got {len(arrays)}")
        if any(isinstance(a, dict) for a in arrays):
            raise FeedError("a step is called with arrays, in the order of its feeds; feeds by name go to session.run")
        converted = [convert(a, t, f"placeholder {t.name!r}") for a, t in zip(arrays, self.feeds, strict=True)]
        extras = self._plan.extras({self.feeds[i]: converted[i] for i in self._unread}) if self._unread else ()
        return self._run([converted[i] for i in self._order], extras)

    def run_feeds(self, feeds: Mapping[Any, Any]) -> Any:
        """Run with arrays looked up by placeholder or name."""
        return self._run(*self._plan.resolve(feeds))

    def _run(self, arrays: Sequence[Any], extras: Extras = ()) -> Any:
        session = self._session
        with session._lock:
            session._check_open()
            values = self._plan.bind(tuple([a.shape for a in arrays]), extras)
            results = self._program.run(values, arrays)
            self.runs += 1
            session._runs += 1
            if self._fetches.graph.updates:
                self._store.run_counter += 1
        return self._fetches.rebuild(results)

    def __repr__(self) -> str:
        return f"<graphc step of {len(self._fetches.graph.outputs)} fetches, {len(self.kernels)} kernels>"
