//! `sdctl completion` and `sdctl man`: what the command line is, for shells and for readers. They ask no registry.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::document;

/// Prints what has a shell complete commands and options.
pub(crate) fn completion(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sdctl", &mut script);
    document(&script)
}

/// Prints the page of the program, or writes one for each command into a folder.
pub(crate) fn pages(folder: Option<&Path>) -> Result<(), Failure> {
    if let Some(folder) = folder {
        return clap_mangen::generate_to(Cli::command(), folder).map_err(|error| {
            let folder = folder.display();
            Failure::new(format!("cannot write the pages into {folder}: {error}"))
        });
    }
    let mut page = Vec::new();
    let rendered = Man::new(Cli::command()).render(&mut page);
    rendered.map_err(|error| Failure::new(format!("cannot write the page: {error}")))?;
    document(&page)
}
