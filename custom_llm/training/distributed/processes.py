"""Several processes that train one model (`torchrun … train_llm.py`): what they tell each other.

All of them run the same code and meet in the calls of `Processes`. Without torchrun there is one process; these calls
then do nothing, and import no torch, for which the questions of a script need not wait.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from custom_llm.common.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError
from custom_llm.common.steps import step

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

T = TypeVar("T")
TIMEOUT = timedelta(minutes=10)  # for a step; a process that has waited so long for another one ends
LONG_TIMEOUT = timedelta(days=30)  # for what one does while others wait: asking, encoding a text, writing a file
PEER_ENDED = ("by peer", "remote process exited")  # how gloo and NCCL word it
SECONDS_TO_SPEAK = 10  # that the first process has to say what is wrong


class _SaidByAll(UserError):
    """An error that all processes have agreed on."""


class Processes:
    """The processes of a training; `size` of them, of which rank 0 speaks and writes.

    `patient` is a group of all of them, with a long timeout.
    """

    def __init__(self, rank: int = 0, size: int = 1, patient: dist.ProcessGroup | None = None) -> None:
        self.rank, self.size = rank, size
        self._patient = patient
        self._now = time.monotonic()
        self._parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None  # torchrun

    @classmethod
    @contextlib.contextmanager
    def joined(cls) -> Iterator[Processes]:
        """While entered, this process is one of those that torchrun has started. They leave together.

        A UserError that is raised inside in any of them is raised in all.
        """
        if world_size() == 1:
            yield cls()
            return
        import torch
        import torch.distributed as dist

        # Tensors on a CPU travel by gloo, those on a GPU by NCCL.
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
        except (ValueError, dist.DistError) as error:
            raise UserError(f"the processes do not find each other ({error}); start them with torchrun") from None
        patient = dist.new_group(backend="gloo", timeout=LONG_TIMEOUT)
        processes = cls(dist.get_rank(), dist.get_world_size(), patient)
        try:
            with processes.raising_together():
                yield processes
            dist.barrier(patient)  # when one ends with an error, torchrun ends those that are left
        except UserError:
            dist.destroy_process_group()
            raise
        except RuntimeError as error:
            if not any(words in str(error) for words in PEER_ENDED):
                raise
            raise UserError(
                "another process of this training has ended, and said why if it could; once that is mended, "
                f"{step('train_llm')} --resume goes on from the last checkpoint"
            ) from None
        dist.destroy_process_group()

    @property
    def is_orphan(self) -> bool:
        """Whether torchrun has ended without these processes, as by `kill -9`: nobody looks after them then."""
        return self._parent is not None and os.getppid() != self._parent

    def part(self, batches: Sequence[T]) -> Sequence[T]:
        """This process's batches of a step: every `size`-th.

        All have equally many: where others have one more, this one has one of theirs, which it has not read.
        """
        n = -(-len(batches) // self.size)
        return [*batches[self.rank :: self.size], batches[-1]][:n]

    def sum(self, *numbers: float) -> list[float]:
        """The sum of each number over all processes. It brings the time, too (see `now`)."""
        if self.size == 1:
            return list(numbers)
        import torch

        values = torch.tensor([*numbers, 0.0 if self.rank else time.monotonic()], dtype=torch.float64)
        torch.distributed.all_reduce(values)
        *sums, self._now = values.tolist()
        return sums

    def now(self) -> float:
        """`time.monotonic()` of rank 0 at the latest `sum`, so that all decide alike what it is time for."""
        return time.monotonic() if self.size == 1 else self._now

    def sum_in_place(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors of one type and device by their sums over all processes."""
        if self.size == 1 or not tensors:
            return
        import torch

        flat = torch.cat([tensor.flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def gather(self, value: T) -> list[T]:
        """The value of each process, in all of them."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            import torch.distributed as dist

            dist.all_gather_object(values, value, group=self._patient)
        return values

    @contextlib.contextmanager
    def raising_together(self) -> Iterator[None]:
        """Raises what a person can mend in one process in all of them, so that none waits for one that has ended.

        It is raised where each of them next ends such a block, which may be inside of another one.
        """
        message = None
        try:
            yield
        except _SaidByAll:
            raise
        except UserError as error:
            if self.size == 1:
                raise
            message = str(error)
        messages = self.gather(message)
        rank = next((rank for rank, said in enumerate(messages) if said is not None), None)
        if rank is not None:
            raise _SaidByAll(f"process {rank}: {messages[rank]}" if rank else messages[rank])

    def shared(self, make: Callable[[], T]) -> T:
        """What `make` gives in rank 0, in all processes. A UserError of it is raised in all of them."""
        values: list[Any] = [None]
        with self.raising_together():
            if self.rank == 0:
                values = [make()]
        if self.size > 1:
            import torch.distributed as dist

            dist.broadcast_object_list(values, src=0, group=self._patient)
        return values[0]

    def rank_0_first(self, make: Callable[[], T]) -> T:
        """What `make` gives in each process: first in rank 0, then in the first of each machine, then in the others.

        So who comes later finds the files that were made before. A UserError in one of them is raised in all.
        """
        own = 0 if self.rank == 0 else 1 if local_rank() == 0 else 2
        for turn in range(3 if self.size > 1 else 1):
            with self.raising_together():
                if turn == own:
                    made = make()
        return made


ALONE = Processes()


def world_size() -> int:
    """How many processes there are on all machines together; 1 where torchrun has started none.

    UserError where somebody else has set what torchrun sets.
    """
    return max(1, _number("WORLD_SIZE")) if "LOCAL_RANK" in os.environ else 1


def local_rank() -> int:
    """The number of this process among those of its machine, from 0."""
    return _number("LOCAL_RANK") if world_size() > 1 else 0


def _number(name: str) -> int:
    """What torchrun says in a variable."""
    text = os.environ.get(name, "")
    if text.isdecimal() and (name == "WORLD_SIZE" or int(text) < _number("WORLD_SIZE")):
        return int(text)
    raise UserError(
        f"the variable {name} is {text!r}, beside LOCAL_RANK, which torchrun sets; start with torchrun, or unset "
        "LOCAL_RANK"
    )


@contextlib.contextmanager
def only_the_first_speaks() -> Iterator[None]:
    """While entered, processes other than the first print nothing and hear nothing.

    What a person can mend is mostly wrong in all of them. The first one says it, and as it ends torchrun ends the
    others of its machine, who wait for that. On other machines the first one says it, too, a little later. Bugs are
    told by all.
    """
    if world_size() == 1 or _number("RANK") == 0:
        yield
        return
    try:
        with Path(os.devnull).open("r+", encoding="utf-8") as nothing, contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(nothing))
            stack.enter_context(contextlib.redirect_stderr(nothing))
            stack.callback(setattr, sys, "stdin", sys.stdin)
            sys.stdin = nothing
            yield
    except UserError:
        time.sleep(SECONDS_TO_SPEAK)
        if local_rank() == 0:
            raise
        raise SystemExit(EXIT_USER_ERROR) from None
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
