//! Each conformance case is shown to fail on at least one backend with one deliberate flaw.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod flawed;
mod late;
mod operator;
mod registrar;
mod session;
mod source;
mod watcher;

use std::collections::BTreeSet;

use std::time::Duration;

use sd_testing::{Ability, Case, Failure, operating, reading, writing};

use crate::flawed::{Flaw, Store};
use crate::source::Source;

/// Which cases must catch which flaw of a backend, and over which source.
type Catches = &'static [(Flaw, &'static [&'static str])];

const ON_LEASES: Catches = &[
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
            "a_withdrawal_is_told",
            "two_feeds_of_one_service_tell_the_same",
            "changes_since_a_known_set_are_told",
        ],
    ),
    (Flaw::NamesNoWithdrawals, &["a_withdrawal_is_named"]),
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
        Flaw::WithdrawsTheRecordOfAnyOwner,
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

const ON_SESSIONS: Catches = &[
    (
        Flaw::LetsRecordsExpire,
        &["a_session_keeps_its_records_without_renewals"],
    ),
    (
        Flaw::TellsTheEndOfASessionOnce,
        &["the_end_of_a_session_is_told_to_each_of_its_registrations"],
    ),
    (
        Flaw::LosesALossWhenACallIsDropped,
        &["the_end_of_a_session_is_told_to_each_of_its_registrations"],
    ),
    (
        Flaw::KeepsTheRecordsOfAnEndedSession,
        &[
            "the_end_of_a_session_is_told_to_each_of_its_registrations",
            "an_id_is_free_after_its_record_expired",
        ],
    ),
    (
        Flaw::EndsAllSessions,
        &["the_end_of_a_session_is_told_to_each_of_its_registrations"],
    ),
    (
        Flaw::RenewsWithoutLooking,
        &[
            "the_end_of_a_session_is_told_to_each_of_its_registrations",
            "renewing_and_updating_after_expiry_is_a_loss_and_does_not_bring_it_back",
        ],
    ),
    (
        Flaw::GoesOnInAnEndedSession,
        &[
            "the_end_of_a_session_is_told_to_each_of_its_registrations",
            "what_a_session_lost_is_registered_again_once_and_in_time",
        ],
    ),
];

const WITH_PERMANENT_RECORDS: Catches = &[
    (
        Flaw::LetsRecordsExpire,
        &["a_permanent_record_stays_until_it_is_withdrawn"],
    ),
    (
        Flaw::WithdrawsWhenClosed,
        &["a_permanent_record_stays_until_it_is_withdrawn"],
    ),
    (
        Flaw::IgnoresWithdrawals,
        &["a_permanent_record_stays_until_it_is_withdrawn"],
    ),
];

/// Also where a flaw is seen late, it is seen.
const WITH_LATE_READS: Catches = &[
    (
        Flaw::WritesOnWhenDropped,
        &["a_register_that_was_dropped_is_cleaned_up"],
    ),
    (Flaw::ReadsOnePage, &["a_big_set_is_complete"]),
    (
        Flaw::ListsFromACache,
        &["a_confirmed_record_is_visible_to_others_at_once"],
    ),
    (
        Flaw::OverwritesOthers,
        &["another_run_under_a_live_id_is_a_conflict_and_changes_nothing"],
    ),
    (
        Flaw::WithdrawsTheRecordOfAnyOwner,
        &["withdrawing_spares_a_successor"],
    ),
    (
        Flaw::WithdrawsWhenReleased,
        &["a_released_record_is_continued_by_another_client"],
    ),
];

const WITH_ADDRESSES_ALONE: Catches = &[
    (Flaw::ReadsOnePage, &["a_big_set_is_complete"]),
    (
        Flaw::TellsDeltas,
        &["two_feeds_of_one_service_tell_the_same"],
    ),
    (
        Flaw::WithdrawsAllItsRecords,
        &["withdrawing_one_of_two_records_leaves_the_other_alive"],
    ),
    (
        Flaw::TellsTheEndOfASessionOnce,
        &["the_end_of_a_session_is_told_to_each_of_its_registrations"],
    ),
];

type OfSource = fn() -> Source;

const ALL: [(OfSource, Catches); 6] = [
    (Source::on_leases, ON_LEASES),
    (Source::on_leases, operator::CATCHES),
    (Source::on_sessions, ON_SESSIONS),
    (Source::with_permanent_records, WITH_PERMANENT_RECORDS),
    (Source::with_late_reads, WITH_LATE_READS),
    (Source::with_addresses_alone, WITH_ADDRESSES_ALONE),
];

/// The cases that find out a fixture that says what is not so.
const OF_FIXTURES: [&str; 2] = [
    "what_the_fixture_says_that_readers_lack_they_lack",
    "what_the_fixture_says_that_writers_lack_they_lack",
];

fn all_cases() -> Vec<Case> {
    [reading::cases(), writing::cases(), operating::cases()].concat()
}

fn case_named(name: &str) -> Case {
    let mut cases = all_cases().into_iter();
    let case = cases.find(|case| case.name == name);
    case.unwrap_or_else(|| panic!("there is no case {name}"))
}

#[tokio::test(start_paused = true)]
async fn every_flaw_is_caught_by_the_cases_that_are_meant_to_catch_it() {
    let mut missed = Vec::new();
    for (source, catches) in ALL {
        for &(flaw, names) in catches {
            for name in names {
                let store = Store::new(source(), flaw);
                let outcome = case_named(name).run(&store).await;
                if !matches!(outcome, Err(Failure::Broken(_))) {
                    missed.push(format!("{flaw:?}: {name}: {outcome:?}"));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn every_case_catches_a_flaw() {
    let of_flaws = ALL.iter().flat_map(|(_, catches)| *catches);
    let of_flaws = of_flaws.flat_map(|(_, names)| *names).copied();
    let catching: BTreeSet<&str> = of_flaws.chain(OF_FIXTURES).collect();
    let cases: BTreeSet<&str> = all_cases().iter().map(|case| case.name).collect();
    assert_eq!(cases, catching);
    assert_eq!(cases.len(), all_cases().len(), "two cases have one name");
}

/// And only those are skipped that need what the source lacks.
#[tokio::test(start_paused = true)]
async fn without_a_flaw_every_case_passes_over_each_source() {
    for (source, _) in ALL {
        let store = Store::new(source(), Flaw::None);
        for report in [
            reading::run_all(&store).await,
            writing::run_all(&store).await,
            operating::run_all(&store).await,
        ] {
            report.expect_passed();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_skipped_case_is_named_with_what_the_source_lacks() {
    let store = Store::new(Source::with_permanent_records(), Flaw::None);
    let report = writing::run_all(&store).await;
    let lacking = |name| {
        let mut outcomes = report.outcomes().iter();
        outcomes
            .find(|(of, _)| *of == name)
            .map(|(_, outcome)| outcome.clone())
    };
    for (name, ability) in [
        ("an_id_is_free_after_its_record_expired", Ability::Expiry),
        (
            "a_session_keeps_its_records_without_renewals",
            Ability::Sessions,
        ),
    ] {
        assert_eq!(lacking(name), Some(Err(Failure::Skipped(ability))));
    }
    assert_eq!(report.skipped().len(), 8, "{:?}", report.skipped());
}

/// What is cheap to find out. Whether an update is in place is not.
#[tokio::test(start_paused = true)]
async fn a_fixture_that_says_that_its_source_lacks_what_is_there_is_found_out() {
    let cases = OF_FIXTURES.map(case_named);
    let granted = case_named("what_is_granted_is_reported_and_within_limits");
    for ability in Source::with_addresses_alone()
        .lacks
        .into_iter()
        .chain([Ability::Expiry])
    {
        if ability == Ability::UpdateInPlace {
            continue;
        }
        let mut source = Source::on_leases();
        if ability == Ability::PermanentRecords {
            source = Source::with_permanent_records();
        }
        let mut said = source.clone();
        said.lacks.push(ability);
        let store = Store::new(source, Flaw::None).said_to_be(said);
        let mut told = Vec::new();
        for case in cases.iter().chain([&granted]) {
            if let Err(Failure::Broken(why)) = case.run(&store).await {
                told.push(why);
            }
        }
        let [why] = &told[..] else {
            panic!("{ability}: {told:?}");
        };
        assert!(why.contains(&ability.to_string()), "{ability}: {why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fixture_that_does_not_say_what_its_source_lacks_is_found_out() {
    let kept = [
        Ability::Leases,
        Ability::Sessions,
        Ability::PermanentRecords,
    ];
    let lacks = Source::with_addresses_alone().lacks.into_iter();
    for lacking in lacks.filter(|ability| !kept.contains(ability)) {
        let said = Source::on_leases();
        let mut source = said.clone();
        source.lacks.push(lacking);
        is_found_out(source, said, lacking).await;
    }
    for (source, said, wrong) in [
        (Source::on_sessions(), Source::on_leases(), Ability::Leases),
        (
            Source::on_leases(),
            Source::on_sessions(),
            Ability::Sessions,
        ),
        (
            Source::with_permanent_records(),
            Source::on_leases(),
            Ability::Expiry,
        ),
    ] {
        is_found_out(source, said, wrong).await;
    }
}

/// Fails unless a case that needs the ability fails, or the one that looks how a record is kept.
async fn is_found_out(source: Source, said: Source, lacking: Ability) {
    let store = Store::new(source, Flaw::None).said_to_be(said);
    let mut failed = Vec::new();
    for case in all_cases() {
        let applies = case.needs.contains(&lacking) || case.name.starts_with("what_is_granted");
        if applies && matches!(case.run(&store).await, Err(Failure::Broken(_))) {
            failed.push(case.name);
        }
    }
    assert!(!failed.is_empty(), "{lacking}");
}

#[tokio::test(start_paused = true)]
async fn reads_that_are_later_than_the_fixture_says_are_found_out() {
    let late = Source::with_late_reads;
    let mut said = late();
    said.late = Duration::ZERO;
    for name in [
        "a_confirmed_record_is_visible_to_others_at_once",
        "a_withdrawn_record_is_gone_at_once",
        "a_list_holds_every_field_of_every_record",
        "the_first_call_answers_with_the_full_set",
    ] {
        let case = case_named(name);
        case.run(&Store::new(late(), Flaw::None)).await.unwrap();
        let store = Store::new(late(), Flaw::None).said_to_be(said.clone());
        let outcome = case.run(&store).await;
        assert!(
            matches!(outcome, Err(Failure::Broken(_))),
            "{name}: {outcome:?}"
        );
    }
}
