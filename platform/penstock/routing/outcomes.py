"""What replicas count while two revisions of a model are compared, and what a gateway asks of them.

Everything is counted since the replica started and only ever grows, so that whoever looks twice knows what happened in between,
however often he looked and whoever looked before. Counts stand by bucket: what a test needs of a stream of bounded numbers is how
many fell where, and a bucket's edge stands for a number on the side that is worse for what is to be shown.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from penstock.models import Frozen

_FIRST_SECONDS: Final = 100e-6
_RATIO: Final = 1.1
LATENCY_SECONDS: Final = tuple(_FIRST_SECONDS * _RATIO**step for step in range(140))
"""Upper bounds of the buckets of answers' times, 100 µs to 57 s, each a tenth above the one before; a last bucket holds what is longer."""
LOSS_EDGES: Final = (-1.0, -0.3, -0.1, -0.03, -0.01, -0.003, -0.001, 0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Upper bounds of the buckets of losses and of their differences; what is exactly 0 is in the bucket of 0."""

_Count = Annotated[int, Field(ge=0, lt=1 << 53)]
_SECONDS_BUCKETS: Final = len(LATENCY_SECONDS) + 1
_LOSS_BUCKETS: Final = len(LOSS_EDGES) + 1
Counts = Annotated[dict[Annotated[int, Field(ge=0, lt=_SECONDS_BUCKETS)], _Count], Field(max_length=_SECONDS_BUCKETS)]
LossCounts = Annotated[dict[Annotated[int, Field(ge=0, lt=_LOSS_BUCKETS)], _Count], Field(max_length=_LOSS_BUCKETS)]
"""By bucket; one that is empty is left out."""
FINITE: Final = ConfigDict(allow_inf_nan=False)
"""Of what a tenant's replica says and the operator reads: JSON has no word for what is no number."""


class ReplicaOutcomes(Frozen):
    """What became of a replica's requests since it started."""

    model_config = FINITE

    age_seconds: float = 0.0
    """Since it first could answer."""
    answered: Annotated[int, Field(ge=0)] = 0
    failed: Annotated[int, Field(ge=0)] = 0
    """What clients got as 5xx, as 400 and as 406. What was refused for want of room is not among it."""
    seconds: Counts = Field(default={})
    """From headers read to answer written, of those that were answered, by `LATENCY_SECONDS`."""
    late: Annotated[int, Field(ge=0)] = 0
    """In flight now, and for longer than any that was answered of late."""
    cpu_seconds: float = 0.0
    """Of the replica's process, since it first could answer, without the part of what other replicas showed."""
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    """Resident now."""
    shown: Annotated[ShownOutcomes | None, Field(exclude_if=lambda told: told is None)] = None
    """Of what other replicas showed it; None: none ever did, and it is in none of the counts above."""
    shadow: ShadowOutcomes | None = None
    """Of a replica that shadows its requests; None: it never did."""
    unrun: Annotated[UnrunRequests | None, Field(exclude_if=lambda told: told is None)] = None
    """Of `failed`, those that no model ever ran. None: they are not told apart, as by replicas of a former release."""

    def downgrade(self, *, knows_shown: bool, knows_unrun: bool) -> ReplicaOutcomes:
        """Without what a release does not know that has not these words, `fleet.SHOWN` and `fleet.UNRUN`."""
        told = self if knows_unrun else self.model_copy(update={"unrun": None})
        if knows_shown:
            return told
        shadow = None if self.shadow is None else self.shadow.model_copy(update={"made": None})
        return told.model_copy(update={"shown": None, "shadow": shadow})


class UnrunRequests(Frozen):
    """Clients' requests that got an error before the model ran."""

    model_config = FINITE

    unfit: Annotated[int, Field(ge=0)] = 0
    """Such as the model's signature does not take, or no inference at all."""
    expired: Counts = Field(default={})
    """Whose `timeout` was over while they waited for their run, by how long they had been there, in `LATENCY_SECONDS`."""


class ShownOutcomes(Frozen):
    """What became of requests that other replicas showed to this one and to one of another revision, one after the other.

    No client waits for them, so they come behind all clients' and tell of a revision without any traffic. Times and CPU time are told
    of those alone that were the only request in the replica from its arrival to its answer: those of two revisions can be
    compared however busy either is.
    """

    model_config = FINITE

    answered: Annotated[int, Field(ge=0)] = 0
    """Of what was never shown before; what is shown again and again tells the same."""
    failed: Annotated[int, Field(ge=0)] = 0
    """Of these, with an error that may be the model's. Another replica had answered them, or they were made from its signature, so that
    what the signature does not take is among it."""
    seconds: Counts = Field(default={})
    """From headers read to answer written, of all that were alone, shown before or not, by `LATENCY_SECONDS`."""
    late: Annotated[int, Field(ge=0)] = 0
    """In flight now, and for longer than any of these took."""
    cpu_seconds: float = 0.0
    """Of the replica's process, while they were in it alone."""


class ShadowOutcomes(Frozen):
    """What came of a replica's sampled inputs elsewhere, by revision that they were shown to and its twin.

    Of each sample that a candidate and a twin of the replica's own revision have answered, the loss against the replica's own
    answer is counted, and the difference of the two losses, which is the candidate's beyond what two copies of one revision differ.
    """

    model_config = FINITE

    revision: str = ""
    """The candidate that these are of. Counting begins anew with another."""
    samples: Annotated[int, Field(ge=0)] = 0
    candidate_loss: LossCounts = Field(default={})
    twin_loss: LossCounts = Field(default={})
    excess: LossCounts = Field(default={})
    """Candidate's less twin's, by `LOSS_EDGES`."""
    candidate_loss_sum: float = 0.0
    twin_loss_sum: float = 0.0
    failed: Annotated[int, Field(ge=0)] = 0
    """Samples that the candidate answered with an error; they count as a loss of 1, too."""
    dropped: Annotated[int, Field(ge=0)] = 0
    """Samples that were given up because something was busy or gone; they are no evidence."""
    made: Annotated[MadeOutcomes | None, Field(exclude_if=lambda told: told is None)] = None
    """The same of inputs that no client ever sent, which are in no count above; None: none were shown."""
    replayed: Annotated[int, Field(ge=0)] = 0
    """Inputs of clients that were shown once more, where they send few: their times count alone."""
    worst: Annotated[tuple[ShadowSample, ...], Field(max_length=5)] = ()
    """Those that differed most."""


class MadeOutcomes(Frozen):
    """What came of inputs that were made from the model's signature, as `ShadowOutcomes` says of clients'."""

    model_config = FINITE

    samples: Annotated[int, Field(ge=0)] = 0
    excess: LossCounts = Field(default={})
    candidate_loss_sum: float = 0.0
    twin_loss_sum: float = 0.0
    failed: Annotated[int, Field(ge=0)] = 0
    supplied: Annotated[int, Field(ge=0)] = 0
    """Of these, inputs that were named rather than made."""


class ShadowSample(Frozen):
    """How one answer of a candidate differed. Numbers of answers only where the deployment allows payloads to be kept."""

    model_config = FINITE

    at: float
    """Epoch seconds."""
    loss: float
    twin_loss: float
    output: Annotated[str, Field(max_length=253)] = ""
    """The output that differed most."""
    told: Annotated[str, Field(max_length=500)] = ""
    """How, in a sentence."""


class Losses(StrEnum):
    """How an answer is held against another; each gives a loss in [0, 1]."""

    AUTO = "Auto"
    """By the output: `Cosine` for rows of length 1; `Argmax` where the model names classes or gives rows of a fixed length from 2 to
    1000, and what of `Relative` is beyond a tenth where that is more; `Relative` for other floats; the share of equal elements for the rest."""
    ARGMAX = "Argmax"
    """Share of rows whose greatest number stands elsewhere. Of the other numbers it says nothing."""
    COSINE = "Cosine"
    """Half of one less the cosine, by row, on average."""
    RELATIVE = "Relative"
    """The norm of the difference over the norms' sum, by row, on average."""
    RANK = "Rank"
    """Share of pairs of a row's numbers whose order differs: half of one less Kendall's tau."""


class ShadowPeer(Frozen):
    """A replica that samples are sent to.

    It is shown what gateways show (`penstock.routing.tokens.data_token`), which follows from the token that all replicas of one
    deployment register with.
    """

    address: str
    """host:port of its socket."""
    tls_name: str = ""
    """That its certificate must have; empty: it speaks no TLS."""


class SampleSource(Frozen):
    """Samples that a deployment's model or profile names."""

    uri: str
    """Of an `.npz` file, or of a folder with `test.npz`."""
    credentials: str | None = None
    """Secret by which it is read; None: the pod's own."""
    part: Annotated[int, Field(ge=0)] = 0
    """Of so many `parts`, the one that this replica shows, so that none is shown by two."""
    parts: Annotated[int, Field(ge=1)] = 1


class ShadowOrders(Frozen):
    """What a replica of a stable revision is to show to others. The client's answer waits for none of it."""

    revision: str
    """The candidate."""
    candidate: tuple[ShadowPeer, ...] = ()
    twins: tuple[ShadowPeer, ...] = ()
    """Others of the replica's own revision, which is told apart by no name. With none, the replica asks itself again."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of requests."""
    loss: Losses = Losses.AUTO
    replay: bool = False
    """Whether recorded or made inputs are to be shown where clients send too few."""
    keep_payloads: bool = False
    loss_where_it_suits: Annotated[bool, Field(exclude_if=lambda suits: not suits)] = False
    """Whether outputs that the loss does not suit are compared by `Auto`: a profile's metric is of some. Only for those that know the
    word `fleet.SHOWN`."""
    samples: Annotated[SampleSource | None, Field(exclude_if=lambda source: source is None)] = None
    """Inputs that are shown as well, where clients send too few; likewise."""


class Orders(Frozen):
    """What a gateway asks of a replica, with the answer to its lease. Only of one whose lease says that it understands them."""

    outcomes: bool = False
    """Say outcomes with each lease."""
    shadow: ShadowOrders | None = None


ShadowOutcomes.model_rebuild()
ReplicaOutcomes.model_rebuild()


class RevisionComparison(Frozen):
    """Of a route: which revisions are compared now. The gateway gives its replicas orders by it."""

    candidate: str
    """Revision."""
    stable: str
    """Revision that answers meanwhile; its replicas shadow."""
    baseline: str = ""
    """Revision of replicas of the stable model that are as young as the candidate's; empty: there are none."""
    shadow_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    loss: Losses = Losses.AUTO
    replay: bool = False
    keep_payloads: bool = False
    sticky: bool = False
    """Whether a caller's requests go to one revision, as far as the gateway can tell callers apart."""
    loss_where_it_suits: Annotated[bool, Field(exclude_if=lambda suits: not suits)] = False
    """Whether outputs that the loss does not suit are compared by `Auto`: a profile's metric is of some. Only for those that know the
    word `fleet.SHOWN`."""
    samples: Annotated[SampleSource | None, Field(exclude_if=lambda source: source is None)] = None
    """Inputs that are shown as well, where clients send too few; likewise."""

    def downgrade(self) -> RevisionComparison:
        """Without what a release does not know that has no word `fleet.SHOWN`, which compares all outputs by what it finds."""
        loss = Losses.AUTO if self.loss_where_it_suits else self.loss
        return self.model_copy(update={"loss": loss, "loss_where_it_suits": False, "samples": None})

    @property
    def revisions(self) -> frozenset[str]:
        """All that are compared."""
        return frozenset({self.candidate, self.stable, self.baseline} - {""})
