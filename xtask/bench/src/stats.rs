//! What many measurements say together: medians, spreads, and ratios paired round by round.

use std::fmt;
use std::time::Duration;

/// The middle of many measurements and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) lowest: f64,
    pub(crate) quarter: f64,
    pub(crate) median: f64,
    pub(crate) three_quarters: f64,
    pub(crate) highest: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self {
            lowest: quantile(&values, 0.0),
            quarter: quantile(&values, 0.25),
            median: quantile(&values, 0.5),
            three_quarters: quantile(&values, 0.75),
            highest: quantile(&values, 1.0),
        }
    }
}

/// The value below which `part` of the sorted values lie, interpolated; not a number if there are none.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index between 0 and the number of values, far below 2^52"
)]
pub(crate) fn quantile(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = last as f64 * part.clamp(0.0, 1.0);
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

/// What one contender needed as a multiple of what another one needed in the same round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    pub(crate) spread: Spread,
    /// In how many rounds it needed less.
    pub(crate) less: usize,
    pub(crate) rounds: usize,
}

impl Ratio {
    pub(crate) fn of<F>(ours: &[F], theirs: &[F], figure: impl Fn(&F) -> f64) -> Self {
        let ratios = || {
            ours.iter()
                .zip(theirs)
                .map(|(ours, theirs)| figure(ours) / figure(theirs))
        };
        Self {
            spread: Spread::of(ratios()),
            less: ratios().filter(|ratio| *ratio < 1.0).count(),
            rounds: ratios().count(),
        }
    }

    pub(crate) fn median(&self) -> f64 {
        self.spread.median
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread {
            lowest,
            median,
            highest,
            ..
        } = self.spread;
        write!(
            f,
            "{median:.2} ({lowest:.2}–{highest:.2}; < 1 in {} of {})",
            self.less, self.rounds
        )
    }
}

/// The longest times of many, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) longest: f64,
}

impl Latency {
    pub(crate) fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut millis: Vec<f64> = times.into_iter().map(as_millis).collect();
        millis.sort_by(f64::total_cmp);
        Self {
            p50: quantile(&millis, 0.5),
            p99: quantile(&millis, 0.99),
            longest: quantile(&millis, 1.0),
        }
    }
}

pub(crate) fn as_millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        let values = [1.0, 2.0, 3.0, 4.0];
        assert!((quantile(&values, 0.5) - 2.5).abs() < 1e-9);
        assert!((quantile(&values, 1.0) - 4.0).abs() < 1e-9);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_ratio_pairs_rounds_and_counts_how_often_less_was_needed() {
        let ratio = Ratio::of(&[1.0, 3.0, 8.0], &[2.0, 4.0, 4.0], |figure| *figure);
        assert_eq!((ratio.less, ratio.rounds), (2, 3));
        assert!((ratio.median() - 0.75).abs() < 1e-9);
        assert_eq!(ratio.to_string(), "0.75 (0.50–2.00; < 1 in 2 of 3)");
    }
}
