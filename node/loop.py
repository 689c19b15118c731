"""The network thread: `run` gives it time and input, `step` is what it makes of them.

The writer and the reader get their work through queues, and put what they finished into one
mailbox, which wakes the network thread when it sleeps. As long as it does, the writer answers for it
what has waited for a commit: to wake another thread for that would take longer than the answer.
"""

import logging
import os
from collections.abc import Callable, Sequence
from math import inf
from random import Random
from typing import Final

from tailrace.protocol.cluster import Listener
from tailrace.protocol.errors import NotCommittedError, ShuttingDownError, StorageFaultError
from tailrace.protocol.limits import FETCH_SESSIONS_MAX, PARKED_FETCHES_MAX, PARKED_PARTITIONS_MAX
from tailrace.transport.connection import Connection
from tailrace.transport.peer_pipes import PeerPipes
from tailrace.transport.poller import Poller, Source
from tailrace.transport.publisher import Subscriber
from tailrace.transport.server import Server
from tailrace.transport.wakeup import Wakeup

from .actions import Follow
from .belonging import Belonging
from .broker import Broker
from .clock import uptime_s, wall_ms
from .config import NodeConfig
from .coordinator_link import CoordinatorLink
from .fetch_sessions import FetchSessions
from .following import Following
from .handlers import committed, fetch, produce, replica_fetch
from .identity import Identity
from .intake import Intake
from .mailbox import Mailbox
from .membership import Membership, Phase
from .parked import ParkedFetches
from .reader import Reader
from .replication.replication import Replication
from .storage.environment import Storage
from .work import Committed, Drain, Drained, Letter, Prepared, ReadDone, ToSend, WriterFailed
from .writer import Writer

FAREWELL_S: Final = 0.05
"""How long a node that has answered everything keeps its connections: what a peer has not read when its
connection ends is lost to it."""

logger: Final = logging.getLogger(__name__)


class Loop:
    """The network thread: `run` gives it time and input, `step` is what it makes of them."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        connect: Callable[[str], Connection],
        subscribe: Callable[[str], Subscriber],
        poller: Poller,
        server: Server,
        storage: Storage,
        writer: Writer,
        reader: Reader,
        mailbox: Mailbox[Letter],
        wall_ms: Callable[[], int] = wall_ms,
        new_random: Callable[[], Random] = Random,
    ) -> None:
        self._now = 0.0
        self._writer = writer
        self._mailbox = mailbox
        self._fetches = FetchSessions(sessions_max=FETCH_SESSIONS_MAX, entries_max=PARKED_PARTITIONS_MAX)
        self._parked_replicas = ParkedFetches(fetches_max=PARKED_FETCHES_MAX, waits_max=PARKED_PARTITIONS_MAX)
        self._poller = poller
        self._belonging = Belonging(config.data_dir, storage.controller_epoch)
        self._membership = Membership(
            Identity.of(config, server.listener, storage),
            config.coordinator,
            held_topics={topic_id for topic_id, _ in storage.logs},
            belonging=self._belonging,
            rng=new_random(),
        )
        self._replication = Replication(
            config.node_id,
            connect=connect,
            poller=self._poller,
            membership=self._membership,
            coordinators=config.coordinator,
            storage=storage,
            writer=writer,
            random=new_random(),
        )
        self._broker = Broker(
            server=server,
            storage=storage,
            writer=writer,
            reader=reader,
            fetches=self._fetches,
            parked_replicas=self._parked_replicas,
            replication=self._replication,
            wall_ms=wall_ms,
            pipes=PeerPipes(poller),
        )
        self._intake = Intake(self._broker)
        self._following = Following(config.node_id, self._membership, self._broker.leaders, writer, storage)
        self._link = CoordinatorLink(
            connect=connect,
            subscribe=subscribe,
            poller=self._poller,
            membership=self._membership,
            follow=self._follow,
        )
        self._closing = self._drained = False
        self._due_at = 0.0
        """When there is something to look at, as far as it was known at the last look."""
        self._replicates = False  # Then every round looks. What begins it is always followed by a look.
        self._end_at = inf
        self._failure: Exception | None = None

    def run(
        self,
        asked_to_stop: Callable[[], bool],
        wakeup: Wakeup,
        on_ready: Callable[[Listener], None],
        parent_fd: int | None,
    ) -> None:
        """Until everything is answered after a stop. Raises what made the writer fail."""
        self._poller.add(self._broker.server)
        self._poller.add(wakeup)
        if parent_fd is not None:
            self._poller.add(parent_fd)
        self._writer.answer_by(self._open_at_once if self._writer.inline else self._open_for_sleeper)
        told = ending = False
        now = uptime_s()
        while now < self._end_at:
            ready = self._sleep()
            now = uptime_s()
            if wakeup in ready:
                wakeup.clear()
                ready.remove(wakeup)
                ending = ending or asked_to_stop()
            if parent_fd is not None and parent_fd in ready:
                ending = self._parent_is_gone(parent_fd) or ending  # it stays ready until it was looked at
            self.step(ready, now)
            if self._belonging.is_news and self._membership.ready:
                self._belonging.record()
            if not told and self._membership.ready:
                told = True
                on_ready(self._broker.server.listener)
            if ending and not self._closing:
                self._close(now)
            if self._drained and self._membership.phase is Phase.LEFT:
                self._end_at = min(self._end_at, now + FAREWELL_S)
        if self._failure is not None:
            raise self._failure

    def step(self, ready: Sequence[Source], now: float) -> None:
        """Take in what has come, and do what is due."""
        self._now = now
        for letter in self._mailbox.take():
            self._open(letter, now)
        taken = self._intake.take(ready, now)
        if self._writer.inline:
            self._writer.catch_up()
            for letter in self._mailbox.take():
                self._open(letter, now)
        # Most rounds only pass requests to the writer and its answers back: they are not to pay for the rest.
        if now >= self._due_at or self._replicates or len(ready) > taken:
            self._look_round(ready, now)

    def _look_round(self, ready: Sequence[Source], now: float) -> None:
        """Do what is due by time, or follows from what has come; find out when there will be more."""
        self._link.step(ready, now)
        self._following.tick(now)
        self._intake.tick(now)
        fetch.unpark(self._broker, self._fetches.expired(now), now)
        replica_fetch.unpark(self._broker, self._parked_replicas.expired(now), now)
        self._replication.step(ready, now)
        self._renew_faulty()
        self._settle(now)
        self._due_at = min(
            self._membership.next_tick(),
            self._following.next_tick(),
            self._intake.next_tick(),
            self._fetches.next_deadline(),
            self._parked_replicas.next_deadline(),
            self._replication.next_tick(now),
        )
        self._replicates = self._replication.busy

    def next_step(self) -> float:
        """When `step` has something to do at the latest, if nothing comes in before: then it will look."""
        self._due_at = min(self._due_at, self._fetches.next_deadline(), self._end_at)
        return self._due_at

    def _parent_is_gone(self, parent_fd: int) -> bool:
        if os.read(parent_fd, 4096):
            return False
        logger.info("the parent process is gone")
        self._poller.remove(parent_fd)
        return True

    def _sleep(self) -> list[Source]:
        """Wait for input, a letter, or the next timer."""
        wake = self.next_step()
        if self._writer.inline:
            wake = min(wake, uptime_s() + self._writer.idle_s())
        self._mailbox.fall_asleep()
        try:
            timeout_s = 0 if self._mailbox.waits else None if wake == inf else wake - uptime_s()
            return self._poller.poll(timeout_s)
        finally:
            self._mailbox.wake_up()

    def _settle(self, now: float) -> None:
        """High watermarks have moved: answer who has waited for that."""
        for key, produces in self._replication.take_moved():
            for waited in produces:
                produce.reply(self._broker, waited)
            fetch.unpark(self._broker, self._fetches.changed([key]), now)

    def _renew_faulty(self) -> None:
        faulty = self._replication.faulty
        if faulty.out:
            renewed = self._following.renew(faulty.out)
            faulty.renewed(renewed)
            self._replication.leave(renewed)

    def _open_for_sleeper(self, letter: Letter) -> bool:
        """Writer thread: open the letter for the network thread, which sleeps, if no timer depends on it."""
        if self._replicates or not isinstance(letter, Committed) or letter.copies:
            return False
        self._broker.send_later = self._mailbox.post
        try:
            committed.handle(self._broker, letter, uptime_s())
        finally:
            self._broker.send_later = None
        return True

    def _open_at_once(self, letter: Letter) -> bool:
        self._open(letter, self._now)
        return True

    def _open(self, letter: Letter, now: float) -> None:
        broker = self._broker
        match letter:
            case Committed():
                committed.handle(broker, letter, now)
            case ToSend(peer, reply, frames):
                broker.reply(peer, reply, frames)
            case ReadDone(peer, reply, frames):
                fetch.was_read(broker, peer, reply, frames)
            case Prepared(version):
                self._due_at = now
                begun = self._following.prepared(letter, now)
                self._replication.lead(begun.led, now)
                self._replication.copy(begun.followed)
                fetch.unpark(broker, self._fetches.changed(begun.led), now)
                self._link.applied(version, now)
            case Drained():
                self._drained = True
            case WriterFailed(error):
                self._fail(error, now)

    def _follow(self, action: Follow) -> None:
        if self._closing:
            return
        now, broker = self._now, self._broker
        plan = self._following.follow(action)
        self._replication.leave(plan.leave)
        gone = NotCommittedError("this node does not lead the partition any more; the records may be stored")
        produce.given_up(broker, self._replication.resign(plan.resign), gone)
        self._replication.follow_state(action.touched, now)
        fetch.unpark(broker, self._fetches.changed(plan.resign), now)
        replica_fetch.unpark(broker, self._parked_replicas.changed(plan.resign), now)

    def _close(self, now: float) -> None:
        """Refuse what is new, finish what was accepted, leave the cluster."""
        self._closing, self._due_at = True, now
        self._intake.dispatch.refusal = ShuttingDownError("this node is stopping")
        fetch.release(self._broker, self._fetches.remove_all(), None)
        replica_fetch.release(self._broker, self._parked_replicas.remove_all(), None)
        self._writer.submit(Drain())
        self._link.leave(now)

    def _fail(self, cause: Exception, now: float) -> None:
        """The storage is not to be trusted: acknowledge nothing more, say so, and end."""
        logger.critical("the node stops, since its storage failed: %s", cause)
        error = StorageFaultError(f"this node stops, since its storage failed: {cause}")
        self._closing, self._due_at = True, now
        self._intake.dispatch.refusal = error
        produce.faulted(self._broker, self._writer.unanswered(), error)
        fetch.release(self._broker, self._fetches.remove_all(), error)
        replica_fetch.release(self._broker, self._parked_replicas.remove_all(), error)
        produce.given_up(self._broker, self._replication.waiting.give_up_all(), error)
        self._link.leave(now)
        self._failure = cause
        self._end_at = now + FAREWELL_S

    def close(self) -> None:
        """Send what the threads finished last, and close the connections to the coordinator."""
        for letter in self._mailbox.take():
            if isinstance(letter, ReadDone | ToSend):
                self._open(letter, self._now)
        self._broker.pipes.close_all()
        self._replication.close()
        self._link.close()
        self._poller.close()
