//! The simulated world: tasks, timers and true time, on one thread and from one seed.
//!
//! Whatever is ready runs in an order that the seed draws. As on a real machine, a task may be stopped at any reading of its clock
//! while everything else goes on ([`World::preempt`]), a whole node may be stopped and go on later, and a node may be killed.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use std::{fmt, mem};

use fastrand::Rng;
use futures_util::future::BoxFuture;
use sd_core::clock::Moment;
use sd_core::sync::lock;

use super::history::{History, Record, What};
use super::node::Node;

/// Polls that no schedule needs. One that takes more does not come to rest.
const MOST_POLLS: u64 = 400_000;
/// How deep one stopped task may lie within another.
const DEEPEST: usize = 3;
/// What a poll takes at most, in nanoseconds.
const POLL_NANOS: u64 = 2_000;

/// Looks at a node whenever one of its tasks was polled or is stopped in the middle of that.
pub(super) trait Inspect: Send + Sync {
    fn look_at(&self, node: Node);
}

/// How often and for how long tasks are stopped at readings of their clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stalls {
    pub(super) chance: f64,
    pub(super) ttl: Duration,
}

impl Stalls {
    /// Mostly short; often enough to reach from one side of a deadline to the other; sometimes far beyond.
    fn draw(self, rng: &mut Rng) -> Duration {
        let (shortest, longest) = match rng.u8(..10) {
            0..=3 => (0.0, 0.05),
            4..=8 => (0.3, 1.0),
            _ => (1.0, 3.0),
        };
        let shortest = self.ttl.mul_f64(shortest);
        draw_between(rng, shortest..=self.ttl.mul_f64(longest))
    }
}

/// Everything that is not the code under test. Cheap to clone.
#[derive(Clone)]
pub(super) struct World(Arc<Inner>);

struct Inner {
    woken: Mutex<Vec<usize>>,
    state: Mutex<State>,
    inspector: Mutex<Option<Arc<dyn Inspect>>>,
    history: Mutex<History>,
}

struct State {
    /// True time.
    now: Moment,
    rng: Rng,
    tasks: Vec<Task>,
    runnable: BTreeSet<usize>,
    alarms: BTreeMap<(Moment, u64), Alarm>,
    alarms_set: u64,
    nodes: Vec<NodeState>,
    /// What is being polled, outermost first. All but the last are stopped in the middle of a poll.
    polling: Vec<usize>,
    /// Until when the tasks that are stopped in the middle of a poll are, outermost first.
    stalled: Vec<Moment>,
    polls: u64,
    stalls: Stalls,
    cleared: bool,
}

struct Task {
    node: Node,
    /// `None` when it is done, and while it is polled.
    future: Option<BoxFuture<'static, ()>>,
    done: bool,
    waker: Waker,
    /// Was woken while it was polled.
    again: bool,
}

#[derive(Default)]
struct NodeState {
    stopped_until: Option<Moment>,
    killed: bool,
    /// Ready tasks of a node that is stopped.
    held: Vec<usize>,
}

enum Alarm {
    Wake(Waker),
    Resume(Node),
}

enum Step {
    Poll(usize),
    Wake(Waker),
    Nothing,
}

struct TaskWaker {
    world: std::sync::Weak<Inner>,
    task: usize,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if let Some(world) = self.world.upgrade() {
            lock(&world.woken).push(self.task);
        }
    }
}

impl World {
    pub(super) fn new(rng: Rng) -> Self {
        let state = State {
            now: Moment::ZERO,
            rng,
            tasks: Vec::new(),
            runnable: BTreeSet::new(),
            alarms: BTreeMap::new(),
            alarms_set: 0,
            nodes: vec![NodeState::default()],
            polling: Vec::new(),
            stalled: Vec::new(),
            polls: 0,
            stalls: Stalls::default(),
            cleared: false,
        };
        Self(Arc::new(Inner {
            woken: Mutex::default(),
            state: Mutex::new(state),
            inspector: Mutex::default(),
            history: Mutex::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of the code under test ends the schedule and is reported; nothing is read after it but the history.
        lock(&self.0.state)
    }

    pub(super) fn inspect_with(&self, inspector: Arc<dyn Inspect>) {
        *lock(&self.0.inspector) = Some(inspector);
    }

    /// True time.
    pub(super) fn now(&self) -> Moment {
        self.state().now
    }

    pub(super) fn set_stalls(&self, stalls: Stalls) {
        self.state().stalls = stalls;
    }

    pub(super) fn record(&self, node: Node, what: What) {
        let (at, cleared) = {
            let state = self.state();
            (state.now, state.cleared)
        };
        // What is dropped in the end did not happen.
        if cleared {
            return;
        }
        lock(&self.0.history).push(Record { at, node, what });
    }

    pub(super) fn take_history(&self) -> History {
        mem::take(&mut lock(&self.0.history))
    }

    pub(super) fn add_node(&self) -> Node {
        let mut state = self.state();
        state.nodes.push(NodeState::default());
        Node(state.nodes.len() - 1)
    }

    pub(super) fn spawn(&self, node: Node, future: BoxFuture<'static, ()>) {
        let mut state = self.state();
        let task = state.tasks.len();
        let waker = Waker::from(Arc::new(TaskWaker {
            world: Arc::downgrade(&self.0),
            task,
        }));
        state.tasks.push(Task {
            node,
            future: Some(future),
            done: false,
            waker,
            again: false,
        });
        state.make_ready(task);
    }

    /// How many tasks a node has.
    pub(super) fn tasks(&self, node: Node) -> usize {
        let state = self.state();
        let own = state.tasks.iter().filter(|task| task.node == node);
        own.filter(|task| !task.done).count()
    }

    /// How often a task was polled.
    pub(super) fn polls(&self) -> u64 {
        self.state().polls
    }

    /// Whether the schedule was cut short because it did not come to rest.
    pub(super) fn is_exhausted(&self) -> bool {
        self.polls() >= MOST_POLLS
    }

    /// Runs until `until`, or until `over` says so.
    pub(super) fn run(&self, until: Moment, over: &dyn Fn() -> bool) {
        while !over() {
            match self.next_step(until) {
                Some(Step::Poll(task)) => self.poll(task),
                Some(Step::Wake(waker)) => waker.wake(),
                Some(Step::Nothing) => {}
                None => return,
            }
        }
    }

    fn next_step(&self, until: Moment) -> Option<Step> {
        let woken = mem::take(&mut *lock(&self.0.woken));
        let mut state = self.state();
        for task in woken {
            state.make_ready(task);
        }
        if state.polls >= MOST_POLLS {
            state.now = state.now.max(until);
            return None;
        }
        let limit = if state.runnable.is_empty() {
            until
        } else {
            state.now
        };
        let first = state.alarms.first_entry();
        if let Some(entry) = first.filter(|entry| entry.key().0 <= limit) {
            let ((at, _), alarm) = entry.remove_entry();
            state.now = state.now.max(at);
            return Some(match alarm {
                Alarm::Wake(waker) => Step::Wake(waker),
                Alarm::Resume(node) => {
                    state.resume(node);
                    Step::Nothing
                }
            });
        }
        if state.now >= until || state.runnable.is_empty() {
            state.now = state.now.max(until);
            return None;
        }
        let State { rng, runnable, .. } = &mut *state;
        let chosen = runnable.iter().nth(rng.usize(..runnable.len())).copied()?;
        state.runnable.remove(&chosen);
        Some(Step::Poll(chosen))
    }

    fn poll(&self, task: usize) {
        let (mut future, waker, node) = {
            let mut state = self.state();
            state.polls += 1;
            let took = Duration::from_nanos(state.rng.u64(..POLL_NANOS));
            state.now = state.now + took;
            let slot = &mut state.tasks[task];
            let Some(future) = slot.future.take() else {
                return;
            };
            let (waker, node) = (slot.waker.clone(), slot.node);
            state.polling.push(task);
            (future, waker, node)
        };
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let over = {
            let mut state = self.state();
            state.polling.pop();
            let slot = &mut state.tasks[task];
            let again = mem::take(&mut slot.again);
            slot.done = polled.is_ready();
            if slot.done {
                Some(future)
            } else {
                slot.future = Some(future);
                if again {
                    state.make_ready(task);
                }
                None
            }
        };
        // What it drops may wake and spawn.
        drop(over);
        self.inspect(node);
    }

    /// Stops the task that is being polled for a while, or its whole node, if the seed says so. To be called where a node reads its
    /// clock: what it does next is then done long after the reading.
    pub(super) fn preempt(&self, node: Node) {
        let (since, until) = {
            let mut state = self.state();
            let Some(current) = state.polling.last().copied() else {
                return;
            };
            let stalls = state.stalls;
            let is_own = state.tasks[current].node == node && node != Node::SERVER;
            if !is_own || state.polling.len() > DEEPEST || state.rng.f64() >= stalls.chance {
                return;
            }
            let until = state.now + stalls.draw(&mut state.rng);
            // A task that was stopped before goes on later than this one: it lies below on the stack.
            let until = state
                .stalled
                .last()
                .map_or(until, |outer| until.min(*outer));
            if state.rng.bool() {
                state.stop(node, until);
            }
            state.stalled.push(until);
            (state.now, until)
        };
        self.inspect(node);
        self.run(until, &|| !self.may_stall());
        self.state().stalled.pop();
        while let Some(until) = self.stopped_until(node) {
            self.run(until, &|| false);
        }
        let until = self.now();
        self.record(node, What::Stalled { since, until });
    }

    fn may_stall(&self) -> bool {
        self.state().stalls.chance > 0.0
    }

    fn inspect(&self, node: Node) {
        let inspector = lock(&self.0.inspector).clone();
        if let Some(inspector) = inspector {
            inspector.look_at(node);
        }
    }

    fn stopped_until(&self, node: Node) -> Option<Moment> {
        let state = self.state();
        let until = state.nodes[node.0].stopped_until?;
        (until > state.now && state.polls < MOST_POLLS).then_some(until)
    }

    /// Stops all tasks of a node until then, as SIGSTOP and a suspended machine do. Its clock goes on.
    pub(super) fn stop(&self, node: Node, until: Moment) {
        self.state().stop(node, until);
        self.record(node, What::Stopped { until });
    }

    /// Lets every node that is stopped go on.
    pub(super) fn resume_all(&self) {
        let mut state = self.state();
        for node in 0..state.nodes.len() {
            state.nodes[node].stopped_until = None;
            state.resume(Node(node));
        }
    }

    /// Ends a node without running any of its code. Says whether that was possible: not while one of its tasks is in the middle of
    /// a poll.
    pub(super) fn kill(&self, node: Node) -> bool {
        let mut state = self.state();
        let polling = &state.polling;
        if polling.iter().any(|task| state.tasks[*task].node == node) {
            return false;
        }
        state.nodes[node.0].killed = true;
        let State {
            runnable, tasks, ..
        } = &mut *state;
        runnable.retain(|task| tasks[*task].node != node);
        true
    }

    /// Drops every task, those of killed nodes too. Tasks hold the world, so without this neither would ever be freed.
    pub(super) fn clear(&self) {
        *lock(&self.0.inspector) = None;
        self.state().cleared = true;
        loop {
            let mut state = self.state();
            let futures: Vec<_> = state
                .tasks
                .iter_mut()
                .filter_map(|task| task.future.take())
                .collect();
            let alarms = mem::take(&mut state.alarms);
            drop(state);
            if futures.is_empty() && alarms.is_empty() {
                return;
            }
        }
    }

    /// Returns at that moment of true time.
    pub(super) fn sleep_until(&self, at: Moment) -> Alarmed {
        Alarmed {
            world: self.clone(),
            at,
            set: None,
        }
    }

    pub(super) fn sleep(&self, span: Duration) -> Alarmed {
        self.sleep_until(self.now() + span)
    }

    /// True with this probability.
    pub(super) fn chance(&self, probability: f64) -> bool {
        self.state().rng.f64() < probability
    }

    pub(super) fn between(&self, range: RangeInclusive<Duration>) -> Duration {
        draw_between(&mut self.state().rng, range)
    }

    pub(super) fn below(&self, end: usize) -> usize {
        self.state().rng.usize(..end)
    }

    pub(super) fn pick<T: Copy>(&self, of: &[T]) -> Option<T> {
        self.state().rng.choice(of).copied()
    }
}

pub(super) fn draw_between(rng: &mut Rng, range: RangeInclusive<Duration>) -> Duration {
    let span = range.end().saturating_sub(*range.start());
    *range.start() + span.mul_f64(rng.f64())
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

impl State {
    fn make_ready(&mut self, id: usize) {
        let task = &mut self.tasks[id];
        if task.done {
            return;
        }
        if task.future.is_none() {
            task.again = true;
            return;
        }
        let node = &mut self.nodes[task.node.0];
        if node.killed {
        } else if node.stopped_until.is_some() {
            node.held.push(id);
        } else {
            self.runnable.insert(id);
        }
    }

    fn stop(&mut self, node: Node, until: Moment) {
        let stopped = &mut self.nodes[node.0];
        stopped.stopped_until = stopped.stopped_until.max(Some(until));
        let ready = mem::take(&mut self.runnable);
        for task in ready {
            self.make_ready(task);
        }
        self.set_alarm(until, Alarm::Resume(node));
    }

    fn resume(&mut self, node: Node) {
        let stopped = &mut self.nodes[node.0];
        if stopped.stopped_until.is_some_and(|until| until > self.now) {
            return;
        }
        stopped.stopped_until = None;
        for task in mem::take(&mut stopped.held) {
            self.make_ready(task);
        }
    }

    fn set_alarm(&mut self, at: Moment, alarm: Alarm) -> (Moment, u64) {
        self.alarms_set += 1;
        let key = (at, self.alarms_set);
        self.alarms.insert(key, alarm);
        key
    }
}

/// The future of [`World::sleep_until`].
pub(super) struct Alarmed {
    world: World,
    at: Moment,
    set: Option<(Moment, u64)>,
}

impl Future for Alarmed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.world.state();
        if state.now >= self.at {
            return Poll::Ready(());
        }
        let waker = Alarm::Wake(cx.waker().clone());
        let set = match self.set {
            Some(key) => {
                state.alarms.insert(key, waker);
                key
            }
            None => state.set_alarm(self.at, waker),
        };
        drop(state);
        self.set = Some(set);
        Poll::Pending
    }
}

impl Drop for Alarmed {
    fn drop(&mut self) {
        if let Some(key) = self.set {
            // Not dropped under the lock: it may be the last of its task.
            let alarm = self.world.state().alarms.remove(&key);
            drop(alarm);
        }
    }
}
