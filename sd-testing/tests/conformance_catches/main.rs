//! Each conformance case is shown to fail on at least one backend with one deliberate flaw.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod flawed;
mod operator;
mod registrar;
mod watcher;

use std::collections::BTreeSet;

use sd_testing::{Case, Failure, operating, reading, writing};

use crate::flawed::{Flaw, Store};

/// Which cases must catch which flaw.
const CATCHES: &[(Flaw, &[&str])] = &[
    (
        Flaw::UnknownServiceIsAnError,
        &["an_unknown_service_is_an_empty_set"],
    ),
    (
        Flaw::ForgetsTheZone,
        &["a_list_holds_every_field_of_every_record"],
    ),
    (Flaw::ReplacesSlashes, &["odd_ids_are_kept_apart"]),
    (
        Flaw::DecodesNames,
        &["odd_names_of_services_are_kept_apart"],
    ),
    (
        Flaw::MatchesPrefixes,
        &["a_service_does_not_see_one_whose_name_begins_with_its_own"],
    ),
    (
        Flaw::NamesServicesUnsorted,
        &["services_with_an_instance_are_named_sorted"],
    ),
    (
        Flaw::TellsServicesOnce,
        &["a_service_is_followed_from_its_first_instance_to_its_last"],
    ),
    (
        Flaw::FailsOnGarbage,
        &["an_unreadable_entry_is_skipped_and_named_and_the_others_stay"],
    ),
    (
        Flaw::HidesGarbage,
        &["an_unreadable_entry_is_skipped_and_named_and_the_others_stay"],
    ),
    (Flaw::ReadsOnePage, &["a_big_set_is_complete"]),
    (
        Flaw::IgnoresClose,
        &[
            "a_closed_backend_answers_closed",
            "a_closed_backend_neither_registers_nor_withdraws",
        ],
    ),
    (
        Flaw::StaysSilentUntilAChange,
        &["the_first_call_answers_with_the_full_set"],
    ),
    (
        Flaw::ListsThenWatchesWithAGap,
        &["no_change_falls_between_the_first_set_and_the_feed"],
    ),
    (
        Flaw::ComparesAddresses,
        &[
            "a_readiness_change_is_told_as_the_same_run",
            "a_change_of_metadata_alone_is_told",
            "the_revision_never_goes_back",
        ],
    ),
    (
        Flaw::ComparesIds,
        &[
            "a_new_address_is_told_as_the_same_run",
            "a_new_run_under_an_old_id_is_told",
        ],
    ),
    (
        Flaw::MakesUpRuns,
        &[
            "a_list_holds_every_field_of_every_record",
            "a_readiness_change_is_told_as_the_same_run",
            "a_new_address_is_told_as_the_same_run",
        ],
    ),
    (
        Flaw::TellsDeltas,
        &[
            "a_withdrawal_is_told_and_named",
            "two_feeds_of_one_service_tell_the_same",
            "changes_since_a_known_set_are_told",
        ],
    ),
    (
        Flaw::NamesNoWithdrawals,
        &["a_withdrawal_is_told_and_named"],
    ),
    (
        Flaw::LosesWhatADroppedCallTook,
        &["a_dropped_call_loses_nothing"],
    ),
    (Flaw::CountsBackwards, &["the_revision_never_goes_back"]),
    (
        Flaw::TellsOneFeedOnly,
        &["two_feeds_of_one_service_tell_the_same"],
    ),
    (
        Flaw::NeverSaysThatItIsAlive,
        &["a_quiet_feed_says_that_it_is_alive"],
    ),
    (
        Flaw::ResumesFromNow,
        &[
            "changes_since_a_known_set_are_told",
            "withdrawals_since_a_known_set_are_told",
            "a_very_old_known_set_is_brought_up_to_date",
        ],
    ),
    (
        Flaw::AddsToTheKnownSet,
        &["withdrawals_since_a_known_set_are_told"],
    ),
    (
        Flaw::ResumesWithoutAnAnswer,
        &["a_known_set_without_changes_stays"],
    ),
    (
        Flaw::TrustsAnyPosition,
        &[
            "a_known_set_of_another_history_is_not_trusted",
            "a_known_set_from_the_future_is_not_trusted",
        ],
    ),
    (
        Flaw::TellsNoOrderOfRecords,
        &["of_several_runs_at_one_address_the_newest_counts"],
    ),
    (
        Flaw::OrdersRecordsById,
        &["of_several_runs_at_one_address_the_newest_counts"],
    ),
    (
        Flaw::OrdersRecordsByUpdate,
        &["an_update_makes_an_older_run_no_newer"],
    ),
    (
        Flaw::ComparesIds,
        &["a_ready_run_counts_before_a_newer_one_that_is_not"],
    ),
    (
        Flaw::ListsFromACache,
        &["a_confirmed_record_is_visible_to_others_at_once"],
    ),
    (
        Flaw::ConfirmsBeforeItWrites,
        &["a_confirmed_record_is_visible_to_others_at_once"],
    ),
    (
        Flaw::RefusesItsOwnRecord,
        &["registering_again_is_idempotent"],
    ),
    (
        Flaw::OverwritesOthers,
        &["another_run_under_a_live_id_is_a_conflict_and_changes_nothing"],
    ),
    (
        Flaw::ReportsNoTtl,
        &["what_is_granted_is_reported_and_within_limits"],
    ),
    (
        Flaw::WithdrawsWhenDropped,
        &["dropping_a_registration_changes_nothing_at_the_server"],
    ),
    (
        Flaw::TellsFalseLosses,
        &["no_loss_is_told_while_the_record_is_there"],
    ),
    (
        Flaw::CutsOversizedRecords,
        &["an_oversized_record_is_refused_and_nothing_is_written"],
    ),
    (
        Flaw::RefusesTheLongestTtl,
        &["the_shortest_and_the_longest_ttl_are_accepted"],
    ),
    (
        Flaw::IgnoresWithdrawals,
        &["a_withdrawn_record_is_gone_at_once"],
    ),
    (
        Flaw::FailsToWithdrawWhatIsAbsent,
        &["withdrawing_what_is_absent_is_fine"],
    ),
    (
        Flaw::WithdrawsWhoeverHasTheId,
        &["withdrawing_spares_a_successor"],
    ),
    (
        Flaw::WithdrawsAllItsRecords,
        &["withdrawing_one_of_two_records_leaves_the_other_alive"],
    ),
    (
        Flaw::WritesOnWhenDropped,
        &["a_register_that_was_dropped_is_cleaned_up"],
    ),
    (
        Flaw::UpdatesByDeleteAndPut,
        &["an_update_is_confirmed_and_in_place"],
    ),
    (
        Flaw::UpdatesWhatIsGone,
        &[
            "updating_what_was_removed_is_a_loss_and_does_not_bring_it_back",
            "renewing_and_updating_after_expiry_is_a_loss_and_does_not_bring_it_back",
        ],
    ),
    (
        Flaw::UpdatesOthers,
        &["a_successor_is_neither_updated_nor_renewed"],
    ),
    (
        Flaw::RenewsNothing,
        &["renewals_keep_the_record_beyond_its_ttl"],
    ),
    (
        Flaw::GrantsMoreThanItSays,
        &["without_renewals_the_record_goes_when_its_ttl_has_passed"],
    ),
    (
        Flaw::GrantsLessThanItSays,
        &["without_renewals_the_record_goes_when_its_ttl_has_passed"],
    ),
    (
        Flaw::RenewsWithoutLooking,
        &[
            "renewing_what_was_removed_is_a_loss",
            "a_successor_is_neither_updated_nor_renewed",
        ],
    ),
    (
        Flaw::RenewsByRegisteringAgain,
        &[
            "renewing_what_was_removed_is_a_loss",
            "renewing_and_updating_after_expiry_is_a_loss_and_does_not_bring_it_back",
        ],
    ),
    (
        Flaw::RemembersIdsForEver,
        &["an_id_is_free_after_its_record_expired"],
    ),
    (
        Flaw::WithdrawsWhenReleased,
        &["a_released_record_is_continued_by_another_client"],
    ),
    (
        Flaw::WithdrawsWhenClosed,
        &["a_released_record_is_continued_by_another_client"],
    ),
    (
        Flaw::HidesTheHolder,
        &[
            "a_conflict_says_who_holds_the_id",
            "an_earlier_run_at_the_same_address_is_waited_out",
        ],
    ),
    (
        Flaw::OverwritesOthers,
        &[
            "a_conflict_says_who_holds_the_id",
            "an_earlier_run_at_the_same_address_is_waited_out",
            "a_living_run_at_the_same_address_keeps_its_record",
        ],
    ),
    (
        Flaw::OverwritesItsAddress,
        &[
            "an_earlier_run_at_the_same_address_is_waited_out",
            "a_living_run_at_the_same_address_keeps_its_record",
        ],
    ),
];

fn all_cases() -> Vec<Case> {
    [reading::cases(), writing::cases(), operating::cases()].concat()
}

fn all_catches() -> impl Iterator<Item = (Flaw, &'static [&'static str])> {
    CATCHES.iter().chain(operator::CATCHES).copied()
}

#[tokio::test(start_paused = true)]
async fn every_flaw_is_caught_by_the_cases_that_are_meant_to_catch_it() {
    let cases = all_cases();
    let mut missed = Vec::new();
    for (flaw, names) in all_catches() {
        for name in names {
            let case = cases.iter().find(|case| case.name == *name);
            let case = case.unwrap_or_else(|| panic!("there is no case {name}"));
            let outcome = case.run(&Store::with(flaw)).await;
            if !matches!(outcome, Err(Failure::Broken(_))) {
                missed.push(format!("{flaw:?}: {name}: {outcome:?}"));
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn every_case_catches_a_flaw() {
    let catching: BTreeSet<&str> = all_catches()
        .flat_map(|(_, names)| names)
        .copied()
        .collect();
    let cases: BTreeSet<&str> = all_cases().iter().map(|case| case.name).collect();
    assert_eq!(cases, catching);
    assert_eq!(cases.len(), all_cases().len(), "two cases have one name");
}

#[tokio::test(start_paused = true)]
async fn without_a_flaw_every_case_passes() {
    let store = Store::with(Flaw::None);
    reading::run_all(&store)
        .await
        .expect_passed_but_skipped(&[]);
    writing::run_all(&store)
        .await
        .expect_passed_but_skipped(&[]);
    operating::run_all(&store)
        .await
        .expect_passed_but_skipped(&[]);
}
