//! Figures, for programs or for people.

use serde::Serialize;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) bench: &'static str,
    pub(crate) metric: String,
    pub(crate) members: usize,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

/// Collects figures; JSON is printed as it comes, a table at the end.
pub(crate) struct Report {
    json: bool,
    figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, figures: Vec::new() }
    }

    pub(crate) fn add(&mut self, figure: Figure) {
        if self.json {
            println!("{}", serde_json::to_string(&figure).unwrap_or_default());
        }
        self.figures.push(figure);
    }

    pub(crate) fn finish(&self) {
        if self.json {
            return;
        }
        println!("{:<12} {:>8}  {:<22} {:>14}  unit", "bench", "members", "metric", "value");
        for figure in &self.figures {
            let value = format!("{:.3}", figure.value);
            println!("{:<12} {:>8}  {:<22} {value:>14}  {}", figure.bench, figure.members, figure.metric, figure.unit);
        }
    }
}
