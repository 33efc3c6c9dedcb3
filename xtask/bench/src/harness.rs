//! Rounds: every contender once in each, in a newly shuffled order. A fixed order favours the one that comes after a cheap
//! neighbour, and contenders measured one after the other see different weather on a shared machine.

use crate::Result;

/// Measures every contender once in each of `rounds` rounds and returns the figures as `[contender][round]`. A round before
/// the first warms up and is thrown away.
pub(crate) fn interleave<C, F>(
    contenders: &mut [C],
    rounds: usize,
    mut measure: impl FnMut(&mut C) -> Result<F>,
) -> Result<Vec<Vec<F>>> {
    let mut figures: Vec<Vec<F>> = contenders.iter().map(|_| Vec::new()).collect();
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    for round in 0..=rounds {
        fastrand::shuffle(&mut order);
        for &nth in &order {
            let figure = measure(&mut contenders[nth])?;
            if round > 0 {
                figures[nth].push(figure);
            }
        }
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_every_contender_once_and_the_first_is_thrown_away() {
        let mut calls = 0;
        let figures = interleave(&mut ["a", "b", "c"], 4, |name| {
            calls += 1;
            Ok((*name, (calls - 1) / 3))
        })
        .unwrap();
        assert_eq!(calls, 15);
        for (name, figures) in ["a", "b", "c"].into_iter().zip(figures) {
            assert_eq!(figures, [(name, 1), (name, 2), (name, 3), (name, 4)]);
        }
    }
}
