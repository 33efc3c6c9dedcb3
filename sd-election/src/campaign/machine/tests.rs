//! The machine, told step by step what happens.

use sd_core::port::{CountsFrom, Predecessor};

use super::*;
use crate::config::{StepDown, TermConfig};

const TTL: Duration = Duration::from_secs(10);

fn rules() -> TermRules {
    TermRules {
        ttl: TTL,
        config: TermConfig {
            clock_error: 0.0,
            stop_margin: Some(Duration::from_secs(1)),
            ..TermConfig::default()
        },
        promise: None,
        was_admitted: false,
    }
}

fn promise(early_expiry: Duration) -> Safety {
    let mut promise = Safety::strict();
    promise.early_expiry = early_expiry;
    promise
}

fn at(millis: u64) -> Moment {
    Moment::from_start(Duration::from_secs(1000) + Duration::from_millis(millis))
}

fn token() -> FencingToken {
    FencingToken::new("test", 7)
}

fn first(before: Predecessor) -> Event {
    Event::Standing(Ok(Standing::First {
        token: token(),
        before,
    }))
}

fn confirmed() -> Event {
    Event::Confirmed(Ok(Confirmation::new(TTL, CountsFrom::ThisSend)))
}

fn failed(kind: ErrorKind) -> Error {
    Error::new(kind, "test")
}

/// A machine with a short account of what it asked for and told.
struct Scene {
    machine: Machine,
    told: Vec<String>,
}

impl Scene {
    fn new(rules: TermRules) -> Self {
        Self {
            machine: Machine::new(rules),
            told: Vec::new(),
        }
    }

    /// A leader since 0 ms, confirmed at the same moment.
    fn leading(rules: TermRules) -> Self {
        let mut scene = Self::new(rules);
        scene.step(0, Event::Tick);
        scene.step(0, Event::Joined(Ok(())));
        scene.step(0, confirmed());
        scene.step(0, first(Predecessor::None));
        assert!(
            scene.told.contains(&"elected until 9000".to_owned()),
            "{:?}",
            scene.told
        );
        scene.told.clear();
        scene
    }

    fn step(&mut self, millis: u64, event: Event) {
        self.step_alive(millis, event, 0);
    }

    fn step_alive(&mut self, millis: u64, event: Event, alive: u64) {
        let since = |moment: Moment| moment.since(at(0)).as_millis();
        for action in self.machine.step(at(millis), event, at(alive)) {
            self.told.push(match action {
                Action::Begin(call) => format!("begin {call:?}"),
                Action::Abandon(call) => format!("abandon {call:?}"),
                Action::Tell(Notice::Elected { deadline, .. }) => {
                    format!("elected until {}", since(deadline))
                }
                Action::Tell(Notice::Extended { deadline }) => {
                    format!("extended until {}", since(deadline))
                }
                Action::Tell(Notice::Ended(reason)) => format!("ended {}", reason.as_str()),
                Action::Tell(Notice::Trouble(error)) => format!("trouble {}", error.is_some()),
                Action::Tell(Notice::AtRisk(_)) => "at risk".to_owned(),
                Action::Tell(Notice::Recovered) => "recovered".to_owned(),
                Action::Tell(Notice::Waiting { .. }) => "waiting".to_owned(),
                Action::Tell(Notice::Taking) => "taking".to_owned(),
            });
        }
    }

    /// Lets time pass until something was asked for or told. Returns when.
    fn until_something(&mut self) -> u64 {
        let mut now = at(0);
        for _ in 0..1000 {
            let next = self.machine.wake_at(now).unwrap();
            assert!(
                next > now || now == at(0),
                "it asks to be woken at once for ever"
            );
            now = next;
            let millis = u64::try_from(now.since(at(0)).as_millis()).unwrap() + 1;
            self.step(millis, Event::Tick);
            if !self.told.is_empty() {
                return millis;
            }
        }
        panic!("nothing happens");
    }

    fn expect(&mut self, told: &[&str]) {
        assert_eq!(self.told, told);
        self.told.clear();
    }
}

#[test]
fn the_deadline_counts_from_when_the_confirmation_was_sent() {
    let mut scene = Scene::leading(rules());
    let sent = scene.until_something();
    assert!((2900..=3400).contains(&sent), "{sent}");
    scene.told.clear();
    // The answer takes two seconds.
    scene.step(sent + 2000, confirmed());
    assert_eq!(scene.told, [format!("extended until {}", sent + 9000)]);
}

#[test]
fn what_is_granted_rules_and_clocks_and_servers_are_allowed_for() {
    let mut rules = rules();
    rules.config.clock_error = 0.1;
    rules.promise = Some(promise(Duration::from_millis(500)));
    let mut scene = Scene::new(rules);
    scene.step(0, Event::Tick);
    scene.step(0, Event::Joined(Ok(())));
    let granted = Confirmation::new(TTL * 2, CountsFrom::ThisSend);
    scene.step(0, Event::Confirmed(Ok(granted)));
    scene.told.clear();
    scene.step(0, first(Predecessor::None));
    scene.expect(&["taking", "elected until 16500", "begin Standing"]);
}

#[test]
fn an_answer_after_the_deadline_brings_nothing_back() {
    let mut scene = Scene::leading(rules());
    let sent = scene.until_something();
    scene.told.clear();
    assert!(sent < 9000);
    scene.step(9000, confirmed());
    assert_eq!(scene.told[0], "ended lease_expired");
    assert!(!scene.told.iter().any(|told| told.starts_with("extended")));
}

#[test]
fn an_entry_that_was_confirmed_while_it_waited_leads_without_another_round_trip() {
    let mut scene = Scene::new(rules());
    scene.step(0, Event::Tick);
    scene.step(0, Event::Joined(Ok(())));
    scene.step(0, Event::Standing(Ok(Standing::Waiting { ahead: Some(1) })));
    scene.step(0, confirmed());
    scene.told.clear();
    scene.step(2000, first(Predecessor::Resigned));
    scene.expect(&["taking", "elected until 9000", "begin Standing"]);
}

#[test]
fn one_that_was_paused_is_confirmed_anew_before_it_leads() {
    let mut scene = Scene::new(rules());
    scene.step(0, Event::Tick);
    scene.step(0, Event::Joined(Ok(())));
    scene.step(0, confirmed());
    scene.told.clear();
    scene.step(60_000, first(Predecessor::None));
    scene.expect(&["taking", "begin Standing", "begin Confirm"]);
    scene.step(60_001, confirmed());
    scene.expect(&["elected until 69000"]);
}

/// Where the server has timed for certain what was sent then.
fn proven_at(millis: u64) -> Event {
    Event::Confirmed(Ok(Confirmation::new(
        TTL,
        CountsFrom::EarlierSend(at(millis)),
    )))
}

#[test]
fn where_confirmations_lag_the_first_term_on_a_fresh_session_begins_at_once() {
    let mut scene = Scene::new(rules());
    scene.step(1000, Event::Tick);
    // The join was sent at 1000 and made the session.
    scene.step(1200, Event::Joined(Ok(())));
    scene.told.clear();
    scene.step(1300, first(Predecessor::None));
    scene.expect(&["taking", "begin Standing"]);
    scene.step(1400, proven_at(1000));
    scene.expect(&["elected until 10000"]);
    // The second one proves the first.
    let sent = scene.until_something();
    scene.told.clear();
    scene.step(sent + 100, proven_at(1000));
    scene.expect(&["extended until 10200"]);
}

#[test]
fn where_confirmations_lag_a_term_on_an_old_session_waits_for_two() {
    let mut scene = Scene::new(rules());
    scene.step(60_000, Event::Tick);
    scene.step(60_000, Event::Joined(Ok(())));
    scene.step(60_000, proven_at(1000));
    scene.step(60_000, first(Predecessor::None));
    scene.told.clear();
    let sent = scene.until_something();
    scene.expect(&["begin Confirm"]);
    scene.step(sent, proven_at(1000));
    scene.expect(&["elected until 69000"]);
}

#[test]
fn where_confirmations_lag_two_close_together_prove_nothing() {
    let mut scene = Scene::new(rules());
    scene.step(60_000, Event::Tick);
    scene.step(60_000, Event::Joined(Ok(())));
    scene.step(60_000, proven_at(1000));
    scene.step(60_000, first(Predecessor::None));
    // Trouble makes it ask again at once.
    scene.step(60_100, Event::Standing(Err(failed(ErrorKind::Unavailable))));
    scene.step(60_110, proven_at(1000));
    assert!(!scene.told.iter().any(|told| told.starts_with("elected")));
    // The next one proves the first.
    let sent = loop {
        scene.told.clear();
        let millis = scene.until_something();
        if scene.told.contains(&"begin Confirm".to_owned()) {
            break millis;
        }
    };
    scene.step(sent, proven_at(1000));
    assert!(
        scene.told.contains(&"elected until 69000".to_owned()),
        "{:?}",
        scene.told
    );
}

#[test]
fn where_confirmations_lag_their_distance_counts_from_the_answer() {
    let mut scene = Scene::new(rules());
    scene.step(60_000, Event::Tick);
    scene.step(60_000, Event::Joined(Ok(())));
    scene.step(60_000, first(Predecessor::None));
    // It may have come as late as that.
    scene.step(62_000, proven_at(1000));
    scene.told.clear();
    let sent = scene.until_something();
    scene.expect(&["begin Confirm"]);
    assert!(sent >= 64_500, "{sent}");
    scene.step(sent, proven_at(1000));
    scene.expect(&["elected until 69000"]);
}

#[test]
fn a_moment_of_another_clock_proves_nothing() {
    let mut scene = Scene::new(rules());
    scene.step(1000, Event::Tick);
    scene.step(1000, Event::Joined(Ok(())));
    scene.step(1000, first(Predecessor::None));
    scene.step(1100, proven_at(999_000));
    assert!(!scene.told.iter().any(|told| told.starts_with("elected")));
}

#[test]
fn a_server_that_grants_less_than_before_shortens_the_term() {
    let mut scene = Scene::leading(rules());
    let sent = scene.until_something();
    scene.told.clear();
    let less = Confirmation::new(TTL * 8 / 10, CountsFrom::ThisSend);
    scene.step(sent, Event::Confirmed(Ok(less)));
    assert_eq!(scene.told, [format!("extended until {}", sent + 7000)]);
}

#[test]
fn a_registry_that_closes_leaves_the_work_its_time_to_stop() {
    let mut scene = Scene::leading(rules());
    scene.step(100, Event::Close);
    scene.expect(&["ended cancelled", "abandon Standing"]);
    // The reader may have been stopped meanwhile.
    scene.step(700, Event::Close);
    scene.step(1699, Event::Tick);
    scene.expect(&[]);
    scene.step(1700, Event::Tick);
    scene.expect(&["begin Leave"]);

    let mut sooner = Scene::leading(rules());
    sooner.step(100, Event::Close);
    sooner.told.clear();
    sooner.step(200, Event::Cancel);
    sooner.expect(&["begin Leave"]);

    let mut waiting = Scene::new(rules());
    waiting.step(0, Event::Tick);
    waiting.step(10, Event::Close);
    assert_eq!(waiting.told.last().unwrap(), "begin Leave");
}

#[test]
fn trouble_that_began_before_the_term_is_told_with_it() {
    let mut scene = Scene::new(rules());
    scene.step(0, Event::Tick);
    scene.step(0, Event::Joined(Ok(())));
    scene.step(0, confirmed());
    scene.step(10, Event::Standing(Err(failed(ErrorKind::Unavailable))));
    scene.told.clear();
    scene.step(500, first(Predecessor::None));
    assert!(
        scene.told.contains(&"at risk".to_owned()),
        "{:?}",
        scene.told
    );
}

#[test]
fn a_predecessor_with_a_longer_ttl_is_waited_for_longer() {
    let mut rules = rules();
    rules.config.takeover_delay = Duration::from_secs(1);
    assert_eq!(rules.takeover_delay(Predecessor::Unknown { ttl: TTL }), TTL);
    assert_eq!(rules.takeover_delay(Predecessor::Resigned), Duration::ZERO);
    rules.config.takeover_delay = Duration::ZERO;
    assert_eq!(
        rules.takeover_delay(Predecessor::Unknown { ttl: TTL }),
        Duration::ZERO
    );
}

#[test]
fn after_a_term_of_unknown_end_it_waits_for_the_takeover_delay() {
    let mut rules = rules();
    rules.config.takeover_delay = TTL;
    for (before, delayed) in [
        (Predecessor::None, false),
        (Predecessor::Resigned, false),
        (Predecessor::Unknown { ttl: TTL }, true),
    ] {
        let mut scene = Scene::new(rules.clone());
        scene.step(0, Event::Tick);
        scene.step(0, Event::Joined(Ok(())));
        scene.step(0, confirmed());
        scene.step(0, first(before));
        let elected = |scene: &Scene| scene.told.iter().any(|told| told.starts_with("elected"));
        assert_eq!(elected(&scene), !delayed, "{before:?}");
        for millis in (3000..=9000).step_by(3000).filter(|_| delayed) {
            scene.step(millis, Event::Tick);
            scene.step(millis, confirmed());
            assert!(!elected(&scene));
        }
        scene.step(10_000, Event::Tick);
        assert!(elected(&scene), "{before:?}");
    }
}

#[test]
fn who_leaves_within_the_takeover_delay_does_not_speak_for_the_leader_before() {
    let mut rules = rules();
    rules.config.takeover_delay = TTL;
    for (before, cancelled_at, settled) in [
        (Predecessor::Unknown { ttl: TTL }, 5000, false),
        (Predecessor::Unknown { ttl: TTL }, 10_000, true),
        (Predecessor::Resigned, 5000, true),
    ] {
        let mut scene = Scene::new(rules.clone());
        scene.step(0, Event::Tick);
        scene.step(0, Event::Joined(Ok(())));
        scene.step(0, first(before));
        scene.step(cancelled_at, Event::Tick);
        scene.step(cancelled_at, Event::Cancel);
        assert!(scene.told.contains(&"begin Leave".to_owned()));
        assert_eq!(
            scene.machine.is_settled(),
            settled,
            "{before:?} {cancelled_at}"
        );
    }
}

#[test]
fn a_failed_renewal_is_told_once_tried_again_and_forgotten_when_one_succeeds() {
    let mut scene = Scene::leading(rules());
    let sent = scene.until_something();
    scene.expect(&["begin Confirm"]);
    scene.step(
        sent + 10,
        Event::Confirmed(Err(failed(ErrorKind::Unavailable))),
    );
    scene.expect(&["at risk"]);
    let again = scene.until_something();
    assert!(again <= sent + 10 + 1000, "{again}");
    scene.expect(&["begin Confirm"]);
    // Silence: the attempt has a limit.
    let given_up = scene.until_something();
    assert!(given_up <= again + 2510, "{given_up}");
    scene.expect(&["abandon Confirm"]);
    let again = scene.until_something();
    scene.expect(&["begin Confirm"]);
    scene.step(again + 1, confirmed());
    assert_eq!(
        scene.told,
        [
            "recovered".to_owned(),
            format!("extended until {}", again + 9000)
        ]
    );
}

#[test]
fn stepping_down_on_the_first_error_can_be_asked_for() {
    let mut rules = rules();
    rules.config.step_down = StepDown::OnFirstError;
    let mut scene = Scene::leading(rules);
    let sent = scene.until_something();
    scene.told.clear();
    scene.step(
        sent + 1,
        Event::Confirmed(Err(failed(ErrorKind::Unavailable))),
    );
    assert_eq!(scene.told[0], "ended stepped_down");
}

#[test]
fn the_work_may_stop_until_the_hand_over_and_only_then_the_entry_is_left() {
    let mut scene = Scene::leading(rules());
    scene.step(9000, Event::Tick);
    scene.expect(&["ended lease_expired", "abandon Standing"]);
    scene.step(9999, Event::Tick);
    scene.expect(&[]);
    scene.step(10_000, Event::Tick);
    scene.expect(&["begin Leave"]);

    let mut sooner = Scene::leading(rules());
    sooner.step(9000, Event::Tick);
    sooner.told.clear();
    sooner.step(9500, Event::Cancel);
    sooner.expect(&["begin Leave"]);
}

#[test]
fn a_term_ends_once_and_for_the_first_reason() {
    let mut scene = Scene::leading(rules());
    scene.step(
        100,
        Event::Standing(Ok(Standing::Gone(failed(ErrorKind::NotFound)))),
    );
    scene.step(200, Event::Confirmed(Err(failed(ErrorKind::LeaseLost))));
    scene.step(9100, Event::Resign);
    scene.step(9200, Event::Left(Ok(())));
    let ends: Vec<_> = scene
        .told
        .iter()
        .filter(|told| told.starts_with("ended"))
        .collect();
    assert_eq!(ends, ["ended entry_gone"]);
    assert!(scene.machine.is_done());
    assert!(matches!(
        scene.machine.into_end(),
        (Some(EndReason::EntryGone(_)), Ok(()))
    ));
}

#[test]
fn an_entry_that_is_lost_while_it_waits_ends_the_wait() {
    for event in [
        Event::Standing(Ok(Standing::Gone(failed(ErrorKind::NotFound)))),
        Event::Confirmed(Err(failed(ErrorKind::LeaseLost))),
    ] {
        let mut scene = Scene::new(rules());
        scene.step(0, Event::Tick);
        scene.step(0, Event::Joined(Ok(())));
        scene.told.clear();
        scene.step(10, event);
        assert_eq!(scene.told.last().unwrap(), "begin Leave");
        scene.step(20, Event::Left(Ok(())));
        assert!(scene.machine.is_done());
    }
}

#[test]
fn a_join_of_unknown_outcome_is_left_and_leaving_is_tried_again() {
    let mut scene = Scene::new(rules());
    scene.step(0, Event::Tick);
    scene.expect(&["begin Join"]);
    scene.step(10, Event::Joined(Err(failed(ErrorKind::Timeout))));
    scene.expect(&["trouble true"]);
    scene.step(20, Event::Cancel);
    scene.expect(&["begin Leave"]);
    scene.step(30, Event::Left(Err(failed(ErrorKind::Unavailable))));
    scene.until_something();
    scene.expect(&["begin Leave"]);
    scene.step(5000, Event::Left(Ok(())));
    assert!(scene.machine.is_done());
}

#[test]
fn leaving_is_given_up_when_the_lease_has_ended_by_itself() {
    let mut scene = Scene::leading(rules());
    scene.step(100, Event::Resign);
    scene.step(200, Event::Left(Err(failed(ErrorKind::Unavailable))));
    for millis in (300..=15_100).step_by(100) {
        scene.step(millis, Event::Left(Err(failed(ErrorKind::Unavailable))));
    }
    assert!(scene.machine.is_done());
    let (reason, left) = scene.machine.into_end();
    assert!(matches!(reason, Some(EndReason::Resigned)));
    assert_eq!(left.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn what_cannot_be_mended_ends_the_campaign() {
    for kind in [
        ErrorKind::Denied,
        ErrorKind::Rejected,
        ErrorKind::InvalidInput,
        ErrorKind::Closed,
    ] {
        let mut scene = Scene::new(rules());
        scene.step(0, Event::Tick);
        scene.step(10, Event::Joined(Err(failed(kind))));
        scene.step(20, Event::Left(Ok(())));
        let (reason, _) = scene.machine.into_end();
        assert!(matches!(reason, Some(EndReason::Fatal(error)) if error.kind() == kind));
    }
}

#[test]
fn refusals_that_begin_later_are_waited_for() {
    for kind in [ErrorKind::Denied, ErrorKind::Rejected] {
        let mut rules = rules();
        rules.was_admitted = true;
        let mut scene = Scene::new(rules);
        scene.step(0, Event::Tick);
        scene.step(10, Event::Joined(Err(failed(kind))));
        scene.expect(&["begin Join", "trouble true"]);
        scene.until_something();
        scene.expect(&["begin Join"]);
    }
}

#[test]
fn a_leader_that_is_refused_goes_on_until_its_deadline() {
    let mut scene = Scene::leading(rules());
    scene.step(3400, Event::Tick);
    scene.expect(&["begin Confirm"]);
    scene.step(3410, Event::Confirmed(Err(failed(ErrorKind::Rejected))));
    scene.expect(&["at risk"]);
}

#[test]
fn a_ttl_that_leaves_no_room_is_refused() {
    let mut rules = rules();
    rules.promise = Some(promise(Duration::from_secs(4)));
    let mut scene = Scene::new(rules);
    scene.step(0, Event::Tick);
    scene.step(0, Event::Joined(Ok(())));
    scene.step(0, confirmed());
    scene.step(0, Event::Left(Ok(())));
    let (reason, _) = scene.machine.into_end();
    assert!(
        matches!(reason, Some(EndReason::Fatal(error)) if error.kind() == ErrorKind::InvalidInput)
    );
}

#[test]
fn a_leader_without_progress_is_not_renewed_and_one_with_is() {
    let mut rules = rules();
    rules.config.progress_within = Some(Duration::from_secs(2));
    let mut scene = Scene::leading(rules.clone());
    scene.step_alive(3400, Event::Tick, 1000);
    scene.expect(&["at risk"]);
    scene.step_alive(8000, Event::Tick, 7900);
    scene.expect(&["begin Confirm"]);

    let mut alive = Scene::leading(rules);
    alive.step_alive(3400, Event::Tick, 1500);
    alive.expect(&["begin Confirm"]);
}
