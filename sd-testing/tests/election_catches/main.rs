//! Each conformance case of elections is shown to fail on at least one elector with one deliberate flaw.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod best_effort;
mod elector;
mod entry;
mod feed;
mod flawed;

use std::collections::BTreeSet;

use sd_testing::{Case, Failure, electing};

use crate::flawed::{Flaw, Kind, Store};

/// Which cases must catch which flaw.
type Catches = &'static [(Flaw, &'static [&'static str])];

const ON_LEASES: Catches = &[
    (
        Flaw::PromisesWhatItsTypeDoesNot,
        &["what_is_promised_is_told_and_fits_the_type"],
    ),
    (
        Flaw::JoinsAnewEachTime,
        &["joining_again_with_one_ticket_finds_the_same_entry"],
    ),
    (
        Flaw::SharesIdsAmongClients,
        &["an_id_that_another_client_took_part_with_is_a_conflict"],
    ),
    (
        Flaw::LeavesForAnyHolderOfTheId,
        &["an_id_that_another_client_took_part_with_is_a_conflict"],
    ),
    (
        Flaw::RejoinsInPlaceOfOthers,
        &["a_join_repeated_after_leaving_spares_the_leader"],
    ),
    (
        Flaw::EntersAnything,
        &["a_ticket_that_can_never_work_is_refused_and_nothing_is_entered"],
    ),
    (
        Flaw::CutsNames,
        &["elections_whose_names_begin_alike_do_not_mix"],
    ),
    (
        Flaw::IgnoresClose,
        &["a_closed_client_takes_part_in_nothing"],
    ),
    (
        Flaw::JoinsWhenClosed,
        &["a_closed_client_takes_part_in_nothing"],
    ),
    (
        Flaw::FailsToLeaveWhatIsAbsent,
        &[
            "leaving_an_election_that_was_never_joined_is_fine",
            "leaving_again_spares_a_later_leader",
        ],
    ),
    (
        Flaw::LeavesForTheLeader,
        &[
            "leaving_an_election_that_was_never_joined_is_fine",
            "leaving_again_spares_a_later_leader",
        ],
    ),
    (
        Flaw::IgnoresLeaving,
        &[
            "when_the_leader_leaves_the_next_one_leads_with_a_greater_token",
            "a_candidate_that_has_left_is_gone_for_good",
        ],
    ),
    (
        Flaw::JoinsOnWhenDropped,
        &["a_join_that_was_dropped_is_cleaned_up"],
    ),
    (
        Flaw::StaysSilentUntilAChange,
        &["a_candidate_alone_leads_at_once"],
    ),
    (Flaw::ElectsEverybody, &["a_second_candidate_waits"]),
    (
        Flaw::NeverTellsOfAChange,
        &["when_the_leader_leaves_the_next_one_leads_with_a_greater_token"],
    ),
    (
        Flaw::HandsOverToTheNewest,
        &["candidates_lead_in_the_order_in_which_they_joined"],
    ),
    (
        Flaw::CountsTokensPerClient,
        &[
            "when_the_leader_leaves_the_next_one_leads_with_a_greater_token",
            "many_candidates_lead_one_after_the_other",
        ],
    ),
    (
        Flaw::CountsTokensAnewWhenEmpty,
        &["tokens_grow_also_when_no_candidate_took_part_in_between"],
    ),
    (
        Flaw::TakesAnyChangeForTheEnd,
        &["a_candidate_in_the_middle_that_leaves_makes_no_other_lead"],
    ),
    (
        Flaw::TellsAgain,
        &["a_standing_is_not_told_again_while_nothing_changes"],
    ),
    (
        Flaw::LosesWhatADroppedQuestionTook,
        &["dropped_questions_lose_nothing"],
    ),
    (
        Flaw::WatchesOnlyTheOneBefore,
        &[
            "a_waiting_candidate_whose_lease_ended_is_told",
            "a_waiting_candidate_that_was_removed_is_told",
        ],
    ),
    (
        Flaw::LooksNoMoreOnceItLeads,
        &[
            "a_leader_whose_lease_ended_is_told_and_never_comes_back",
            "a_leader_that_was_removed_is_told_and_never_comes_back",
        ],
    ),
    (
        Flaw::LeavesWhenDropped,
        &["dropping_an_entry_changes_nothing_at_the_server"],
    ),
    (
        Flaw::ReportsLessThanWasAskedFor,
        &["at_least_the_time_to_live_that_was_asked_for_is_granted"],
    ),
    (
        Flaw::GrantsMoreThanItSays,
        &["without_confirmations_the_next_one_leads_in_time_and_not_before"],
    ),
    (
        Flaw::GrantsLessThanItSays,
        &["without_confirmations_the_next_one_leads_in_time_and_not_before"],
    ),
    (
        Flaw::ConfirmsNothing,
        &[
            "confirmations_keep_the_leader_beyond_its_ttl",
            "without_confirmations_the_next_one_leads_in_time_and_not_before",
        ],
    ),
    (
        Flaw::ConfirmsWhileItStands,
        &["without_confirmations_the_next_one_leads_in_time_and_not_before"],
    ),
    (
        Flaw::ConfirmsWithoutLooking,
        &[
            "a_candidate_that_has_left_is_gone_for_good",
            "a_waiting_candidate_whose_lease_ended_is_told",
            "a_leader_that_was_removed_is_told_and_never_comes_back",
        ],
    ),
    (
        Flaw::ConfirmsByJoiningAgain,
        &[
            "a_candidate_that_has_left_is_gone_for_good",
            "a_leader_whose_lease_ended_is_told_and_never_comes_back",
            "a_leader_that_was_removed_is_told_and_never_comes_back",
        ],
    ),
    (
        Flaw::ProclaimsWithoutLooking,
        &[
            "a_candidate_that_has_left_is_gone_for_good",
            "a_waiting_candidate_that_was_removed_is_told",
        ],
    ),
    (
        Flaw::ProclaimsNothing,
        &[
            "an_observer_is_told_what_the_leader_proclaims",
            "what_a_waiting_candidate_proclaims_is_told_when_it_leads",
        ],
    ),
    (
        Flaw::TellsNothingUntilAChange,
        &["an_observers_first_call_answers_at_once"],
    ),
    (
        Flaw::ReadsValuesAsText,
        &["an_observer_is_told_who_leads_with_its_value_and_token"],
    ),
    (
        Flaw::TellsItsOwnTokens,
        &["an_observer_is_told_who_leads_with_its_value_and_token"],
    ),
    (
        Flaw::NeverTellsThatNoneLeads,
        &["an_observer_sees_each_handover_and_at_last_no_leader"],
    ),
    (
        Flaw::ComparesLeadersOnly,
        &["an_observer_is_told_what_the_leader_proclaims"],
    ),
    (
        Flaw::ComparesNothingAfterTheFirst,
        &["an_observer_sees_each_handover_and_at_last_no_leader"],
    ),
    (
        Flaw::TellsOldTermsAgain,
        &["an_observer_sees_each_handover_and_at_last_no_leader"],
    ),
    (
        Flaw::TellsWhatAnyCandidateProclaims,
        &["what_a_waiting_candidate_proclaims_is_told_when_it_leads"],
    ),
    (
        Flaw::LosesWhatADroppedCallTook,
        &["a_dropped_call_of_an_observer_loses_nothing"],
    ),
    (
        Flaw::NeverSaysThatItIsAlive,
        &["a_quiet_feed_of_an_election_says_that_it_is_alive"],
    ),
    (
        Flaw::MakesUpATerm,
        &[
            "the_first_recorded_term_has_none_before_it",
            "without_records_nothing_is_known_of_the_term_before",
        ],
    ),
    (
        Flaw::RecordsNoResignation,
        &["the_next_leader_learns_that_the_one_before_had_stopped"],
    ),
    (
        Flaw::RecordsOnlyResignations,
        &["the_next_leader_learns_that_the_one_before_may_still_believe"],
    ),
    (
        Flaw::TellsTheShorterTtl,
        &["a_term_that_ends_early_does_not_hide_a_longer_one_before_it"],
    ),
    (
        Flaw::RecordsUnasked,
        &["without_records_nothing_is_known_of_the_term_before"],
    ),
    (
        Flaw::RecordsEveryEnd,
        &["the_next_leader_may_be_left_to_think_that_the_one_before_still_believes"],
    ),
    (
        Flaw::ForgetsWhatItFound,
        &[
            "the_first_recorded_term_has_none_before_it",
            "the_next_leader_learns_that_the_one_before_had_stopped",
        ],
    ),
];

const ON_SESSIONS: Catches = &[
    (
        Flaw::EndsOneEntryOfASession,
        &["the_end_of_a_session_is_the_end_of_all_its_entries"],
    ),
    (
        Flaw::EndsAllSessions,
        &["the_end_of_a_session_is_the_end_of_all_its_entries"],
    ),
    (
        Flaw::ConfirmsWithoutLooking,
        &[
            "the_end_of_a_session_is_the_end_of_all_its_entries",
            "a_leader_whose_lease_ended_is_told_and_never_comes_back",
        ],
    ),
];

/// On a server that is well, best effort is no excuse.
const BEST_EFFORT: Catches = &[
    (Flaw::ElectsEverybody, &["a_second_candidate_waits"]),
    (
        Flaw::CountsTokensAnewWhenEmpty,
        &["tokens_grow_also_when_no_candidate_took_part_in_between"],
    ),
];

const ALL: [(Kind, Catches); 3] = [
    (Kind::OnLeases, ON_LEASES),
    (Kind::OnSessions, ON_SESSIONS),
    (Kind::BestEffort, BEST_EFFORT),
];

fn case_named(name: &str) -> Case {
    let mut cases = electing::cases().into_iter();
    let case = cases.find(|case| case.name == name);
    case.unwrap_or_else(|| panic!("there is no case {name}"))
}

#[tokio::test(start_paused = true)]
async fn every_flaw_is_caught_by_the_cases_that_are_meant_to_catch_it() {
    let mut missed = Vec::new();
    for (kind, catches) in ALL {
        for &(flaw, names) in catches {
            for name in names {
                let outcome = case_named(name).run(&Store::new(kind, flaw)).await;
                if !matches!(outcome, Err(Failure::Broken(_))) {
                    missed.push(format!("{kind:?}: {flaw:?}: {name}: {outcome:?}"));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn every_case_catches_a_flaw() {
    let cases = electing::cases();
    let catching = ALL.iter().flat_map(|(_, catches)| *catches);
    let catching: BTreeSet<&str> = catching.flat_map(|(_, names)| *names).copied().collect();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names, catching);
    assert_eq!(names.len(), cases.len(), "two cases have one name");
}

#[tokio::test(start_paused = true)]
async fn without_a_flaw_every_case_passes() {
    for (kind, _) in ALL {
        let store = Store::new(kind, Flaw::None);
        electing::run_all(&store).await.expect_passed();
    }
}

#[tokio::test(start_paused = true)]
async fn a_fixture_that_says_another_guarantee_than_the_elector_is_found_out() {
    let promised = case_named("what_is_promised_is_told_and_fits_the_type");
    for (kind, said) in [
        (Kind::BestEffort, Kind::OnLeases),
        (Kind::OnLeases, Kind::BestEffort),
    ] {
        let store = Store::new(kind, Flaw::None).said_to_be(said);
        let outcome = promised.run(&store).await;
        assert!(matches!(outcome, Err(Failure::Broken(_))), "{outcome:?}");
    }
}
