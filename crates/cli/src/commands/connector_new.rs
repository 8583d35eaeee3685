//! `weir connector new`: a folder with a connector that works, to be changed line by line.
//!
//! The files are templates of this program, so that what they say is tested with it.

use crate::failure::Failure;
use crate::output;
use anyhow::Context as _;
use std::path::Path;
use std::process::ExitCode;
use weir_orchestrator::registry::Registry;

/// The name that the templates use.
const TEMPLATE: &str = "my-connector";
/// What is written, by its place in the folder.
const FILES: [(&str, &str); 5] = [
    ("manifest.yaml", include_str!("connector_new/manifest.yaml")),
    ("cases/order_paid.json", include_str!("connector_new/order_paid.json")),
    ("cases/vectors.json", include_str!("connector_new/vectors.json")),
    ("try/try.yaml", include_str!("connector_new/try.yaml")),
    ("README.md", include_str!("connector_new/README.md")),
];

/// Writes the folder `NAME` into `parent`.
pub(crate) fn new(name: &str, parent: &Path) -> anyhow::Result<ExitCode> {
    let files = FILES.map(|(path, template)| (path, named(template, name)));
    if weir_connectors::builtin().iter().any(|manifest| manifest.name == name) {
        return Err(Failure::usage(format!("`{name}` is a connector of every server"))
            .fix(format!("choose a name of your own, such as my-{name}"))
            .into());
    }
    let sample = named(include_str!("connector_new/order_paid.json"), name);
    let written = Registry::default().add("manifest.yaml", &files[0].1, &|_| Some(sample.clone()));
    if written.is_err() {
        return Err(Failure::usage(format!("`{name}` is not a name of a connector"))
            .fix("lower-case words joined by hyphens, such as acme-billing")
            .into());
    }
    let folder = parent.join(name);
    if folder.exists() {
        return Err(
            Failure::new(format!("{} is there already; nothing was written", folder.display()))
                .fix("choose another name, or another folder with --dir")
                .into(),
        );
    }
    for (path, text) in &files {
        let path = folder.join(path);
        let unwritable = || format!("could not write {}", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(unwritable)?;
        }
        std::fs::write(&path, text).with_context(unwritable)?;
        output::line(path.display());
    }
    let shown = folder.display();
    output::remark(format!(
        "`weir connector check {shown}` and `weir connector test {shown}` say whether it is right, `weir apply -f {shown}` publishes it"
    ));
    Ok(ExitCode::SUCCESS)
}

/// A template for this name: as it is, in a header, and for people.
fn named(template: &str, name: &str) -> String {
    let words = |by: &str| name.split('-').map(capital).collect::<Vec<String>>().join(by);
    template
        .replace(TEMPLATE, name)
        .replace("My-Connector", &words("-"))
        .replace("My Connector", &words(" "))
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    match letters.next() {
        Some(first) => first.to_ascii_uppercase().to_string() + letters.as_str(),
        None => String::new(),
    }
}
