//! Every input of the corpus, in every test run.

use std::path::Path;

use fuzz::TARGETS;

#[test]
fn nothing_in_the_corpus_does_harm() {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(target.name);
        let files: Vec<_> = folder
            .read_dir()
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|file| file.unwrap().path())
            .collect();
        assert!(!files.is_empty(), "{} has no corpus", target.name);
        for file in files {
            let data = std::fs::read(&file).unwrap();
            println!("{}", file.display());
            (target.run)(&data);
        }
    }
}
