//! Bar charts as SVG, written by hand: one kind of chart is not worth a plotting library.

use std::fmt::Write as _;

use crate::stats::Spread;

/// Groups of horizontal bars, with whiskers from the first to the third quartile.
#[derive(Debug)]
pub(crate) struct Chart {
    /// The name of the file, without `bench-` and `.svg`.
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) scale: Scale,
    pub(crate) groups: Vec<Group>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Scale {
    Linear,
    /// From this value on.
    Log(f64),
}

/// Bars below one heading.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) label: String,
    pub(crate) bars: Vec<PlotBar>,
}

#[derive(Debug)]
pub(crate) struct PlotBar {
    pub(crate) label: String,
    /// Whether it is one of ours, which have the stronger colour.
    pub(crate) ours: bool,
    pub(crate) spread: Spread,
}

const WIDTH: f64 = 860.0;
const LEFT: f64 = 270.0;
const RIGHT: f64 = 90.0;
const HEAD: f64 = 44.0;
const LINE: f64 = 20.0;
const GAP: f64 = 10.0;
const OURS: &str = "#0b7285";
const THEIRS: &str = "#adb5bd";

impl Chart {
    pub(crate) fn file(&self) -> String {
        format!("bench-{}.svg", self.name)
    }

    pub(crate) fn to_svg(&self) -> String {
        let highest = self
            .groups
            .iter()
            .flat_map(|group| &group.bars)
            .map(|bar| bar.spread.three_quarters)
            .fold(0.0, f64::max);
        let length = |value: f64| (WIDTH - LEFT - RIGHT) * self.scale.part(value, highest);

        let mut body = String::new();
        let mut y = HEAD;
        for group in &self.groups {
            // Writing to a String cannot fail.
            let _ = writeln!(
                body,
                r#"<text x="12" y="{:.0}" font-weight="bold">{}</text>"#,
                y + 14.0,
                escaped(&group.label)
            );
            y += LINE;
            for bar in &group.bars {
                let (text_y, middle) = (y + 14.0, y + LINE / 2.0);
                let (end, low, high) = (
                    length(bar.spread.median),
                    length(bar.spread.quarter),
                    length(bar.spread.three_quarters),
                );
                let colour = if bar.ours { OURS } else { THEIRS };
                let _ = writeln!(
                    body,
                    r##"<text x="{:.0}" y="{text_y:.0}" text-anchor="end">{}</text>
<rect x="{LEFT}" y="{:.0}" width="{end:.1}" height="{:.0}" fill="{colour}"/>
<path d="M{:.1} {middle:.0}H{:.1}" stroke="#212529"/>
<text x="{:.1}" y="{text_y:.0}">{}</text>"##,
                    LEFT - 8.0,
                    escaped(&bar.label),
                    y + 3.0,
                    LINE - 6.0,
                    LEFT + low,
                    LEFT + high,
                    LEFT + end.max(high) + 6.0,
                    short(bar.spread.median),
                );
                y += LINE;
            }
            y += GAP;
        }
        let scale = match self.scale {
            Scale::Linear => "",
            Scale::Log(_) => ", logarithmic",
        };
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y:.0}" font-family="sans-serif" font-size="13" fill="#212529">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="12" y="26" font-size="16">{}{scale}</text>
{body}</svg>
"##,
            escaped(&self.title)
        )
    }
}

impl Scale {
    /// Which part of the whole length `value` takes.
    fn part(self, value: f64, highest: f64) -> f64 {
        let part = match self {
            Self::Linear => value / highest,
            Self::Log(from) => (value / from).ln() / (highest / from).ln(),
        };
        if part.is_finite() {
            part.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }
}

/// Three digits.
pub(crate) fn short(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(scale: Scale) -> Chart {
        let bar = |label: &str, value| PlotBar {
            label: label.to_owned(),
            ours: false,
            spread: Spread::of([value]),
        };
        Chart {
            name: "test",
            title: "a & b".to_owned(),
            scale,
            groups: vec![Group {
                label: "<10>".to_owned(),
                bars: vec![bar("one", 10.0), bar("two", 100.0), bar("none", 0.0)],
            }],
        }
    }

    #[test]
    fn lengths_follow_the_scale_and_text_is_escaped() {
        let linear = chart(Scale::Linear).to_svg();
        assert!(linear.contains(r#"width="50.0""#), "{linear}");
        assert!(linear.contains(r#"width="500.0""#));
        assert!(linear.contains("a &amp; b") && linear.contains("&lt;10&gt;"));
        let log = chart(Scale::Log(1.0)).to_svg();
        assert!(log.contains(r#"width="250.0""#), "{log}");
        assert!(log.contains(r#"width="0.0""#));
    }
}
