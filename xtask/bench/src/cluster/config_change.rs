//! From setting a configuration to the receiver of the module.

use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::comparing::{Compared, compare};
use super::module::{Module, now};
use super::service::Service;
use crate::harness::interleave;
use crate::part::Part;
use crate::source::PAUSE;
use crate::{Effort, Result};

pub(super) fn measure(effort: Effort, runtime: &Runtime, service: &Service) -> Result<Part> {
    let samples = effort.pick(500, 20);
    let followed = ["no-module-in-rust", "no-module-in-go"];
    let mut modules = runtime.block_on(Module::both(service.address, followed))?;
    let mut number = 0;
    let figures = interleave(&mut modules, samples, |module| {
        number += 1;
        let config = json!({"number": number, "database": {"host": "10.0.0.1", "pool": 16}});
        runtime.block_on(async {
            sleep(PAUSE).await;
            let began = now();
            service.set_config(module.name, config.to_string()).await?;
            Ok(module.configured(&config).await?.saturating_sub(began))
        })
    })?;
    let Compared {
        table,
        ratio,
        bar,
        group,
    } = compare(
        "a configuration is set → the module's receiver has it",
        &figures,
    );
    Ok(Part {
        text: format!("{METHOD}\n{samples} samples of each:\n\n{table}\n{ratio}\n"),
        bars: vec![bar],
        groups: vec![group],
    })
}

const METHOD: &str = "\
**A configuration is set.** `PUT /v1/modules/{name}/config` at the service, and the clock runs from the request until the receiver of the
module is called: in Rust with the configuration read into its type, in Go with its bytes.
";
