//! What is asked for after changes that cross each other.

use super::super::fakes::node;
use super::*;

/// Takes the next step, and returns what was asked.
fn take(slots: &mut Slots, result: &Result<(), AgentError>) -> Option<String> {
    let step = slots.next(&[])?;
    slots.sending(&step);
    slots.done(&step, result);
    slots.settled(&step);
    Some(asked(&step))
}

/// Takes steps until there is nothing left to ask for.
fn take_all(slots: &mut Slots) -> Vec<String> {
    let mut asked = Vec::new();
    while let Some(step) = take(slots, &Ok(())) {
        asked.push(step);
        assert!(asked.len() < 100, "{asked:?}");
    }
    asked
}

fn asked(step: &Step) -> String {
    let (what, node) = match &step.ask {
        Ask::Register(node) => ("register", node),
        Ask::Drain(node, _) => ("drain", node),
        Ask::Deregister(node) => ("deregister", node),
    };
    format!("{what} {}", node.options.server_port)
}

fn all_asked(steps: &[Step]) -> Vec<String> {
    steps.iter().map(asked).collect()
}

/// The service 1, which was at port 9090 and is to be at 9091, where the agent has not accepted it yet.
fn moving() -> (Slots, u64) {
    let mut slots = Slots::default();
    slots.connected();
    let id = slots.add(node("auth", 9090));
    assert_eq!(take_all(&mut slots), ["register 9090"]);
    assert!(slots.update(id, node("auth", 9091)));
    (slots, id)
}

#[test]
fn what_another_application_has_at_the_same_place_is_taken_out_first() {
    let mut slots = Slots::default();
    slots.connected();
    let id = slots.add(node("auth", 9090));
    assert_eq!(take_all(&mut slots), ["register 9090"]);
    let mut other = node("auth", 9090);
    other.options.app.id = "another".to_owned();
    assert!(slots.update(id, other));
    assert_eq!(take_all(&mut slots), ["deregister 9090", "register 9090"]);
}

#[test]
fn all_that_an_agent_may_have_of_a_service_is_taken_out() {
    let (mut slots, id) = moving();
    assert_eq!(all_asked(&slots.remove(id)), ["deregister 9090"]);

    let (mut slots, id) = moving();
    take(&mut slots, &Err(AgentError::own("no")));
    assert_eq!(
        all_asked(&slots.drain(id, None)),
        ["drain 9090", "drain 9091"]
    );
    let leaving = slots.remove(id);
    assert_eq!(all_asked(&leaving), ["deregister 9090", "deregister 9091"]);
    for step in &leaving {
        slots.sending(step);
    }
    for step in &leaving {
        slots.done(step, &Ok(()));
        slots.settled(step);
    }
    assert!(slots.all().is_empty());
}

#[test]
fn what_is_unknown_to_agents_is_drained_and_taken_out_under_its_only_name() {
    let mut slots = Slots::default();
    let id = slots.add(node("auth", 9090));
    assert_eq!(all_asked(&slots.drain(id, None)), ["drain 9090"]);
    assert_eq!(all_asked(&slots.remove(id)), ["deregister 9090"]);
}

#[test]
fn a_drain_of_the_old_name_is_no_drain_of_the_new_one() {
    let (mut slots, id) = moving();
    let steps = slots.drain(id, None);
    assert_eq!(all_asked(&steps), ["drain 9090"]);
    slots.sending(&steps[0]);
    slots.done(&steps[0], &Ok(()));
    slots.settled(&steps[0]);
    assert_eq!(
        take_all(&mut slots),
        ["register 9091", "drain 9091", "deregister 9090"]
    );
}

#[test]
fn a_service_that_comes_back_while_it_leaves_waits_for_that_and_is_registered_again() {
    let mut slots = Slots::default();
    slots.connected();
    let id = slots.add(node("auth", 9090));
    take_all(&mut slots);
    let leaving = slots.remove(id).remove(0);
    slots.sending(&leaving);
    assert_eq!(slots.add(node("auth", 9090)), id);
    assert!(slots.next(&[]).is_none(), "the answer is waited for");
    slots.done(&leaving, &Ok(()));
    slots.settled(&leaving);
    assert!(!slots.are_registered());
    assert_eq!(take_all(&mut slots), ["register 9090"]);
    assert!(slots.are_registered());
}

#[test]
fn what_a_late_deregistration_of_another_service_took_out_is_registered_again() {
    for result in [Ok(()), Err(AgentError::own("no answer"))] {
        let (mut slots, moved) = moving();
        assert_eq!(take(&mut slots, &Ok(())).unwrap(), "register 9091");
        let late = slots.next(&[]).unwrap();
        assert_eq!(asked(&late), "deregister 9090");
        slots.sending(&late);
        let other = slots.add(node("auth", 9090));
        assert_eq!(take_all(&mut slots), ["register 9090"]);
        // Another registration is under way, and answered after the agent has taken both out.
        assert!(slots.update(other, node("auth", 9090)));
        let crossing = slots.next(&[]).unwrap();
        slots.sending(&crossing);
        slots.done(&late, &result);
        slots.settled(&late);
        slots.done(&crossing, &Ok(()));
        slots.settled(&crossing);
        assert!(!slots.are_registered());
        assert_eq!(
            take_all(&mut slots),
            ["register 9090"],
            "and taken out no more"
        );
        assert!(slots.are_registered());
        assert_eq!(all_asked(&slots.remove(moved)), ["deregister 9091"]);
    }
}

#[test]
fn a_registration_under_an_old_name_that_is_anothers_by_now_is_left_alone() {
    let mut slots = Slots::default();
    slots.connected();
    let one = slots.add(node("auth", 9090));
    let late = slots.next(&[]).unwrap();
    slots.sending(&late);
    assert!(slots.update(one, node("auth", 9091)));
    slots.add(node("auth", 9090));
    slots.done(&late, &Ok(()));
    slots.settled(&late);
    assert_eq!(take_all(&mut slots), ["register 9091", "register 9090"]);
}

#[test]
fn only_what_an_agent_may_have_is_kept_at_the_end() {
    let (mut slots, id) = moving();
    slots.add(node("users", 9092));
    slots.forget_unknown();
    assert_eq!(slots.all(), [id]);
    // Also after it has moved back.
    assert!(slots.update(id, node("auth", 9090)));
    slots.forget_unknown();
    assert_eq!(slots.known(), [id]);
    assert_eq!(all_asked(&slots.remove(id)), ["deregister 9090"]);
}
