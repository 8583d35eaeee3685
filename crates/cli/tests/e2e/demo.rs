//! The first five minutes of the README, as a test: what is promised there happens.

use crate::support::{SOON, eventually, stderr, stdout, weir};
use serde_json::Value;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// A running `weir demo`. Dropping it kills server and providers.
struct Demo {
    child: Child,
    folder: TempDir,
}

impl Demo {
    fn start_in(folder: TempDir, extra: &[&str]) -> Self {
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.path().join("shown"))
            .unwrap();
        let mut command = weir(folder.path());
        command.arg("demo").args(["--listen", "127.0.0.1:0"]).args(extra);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Demo { child, folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Everything shown so far, of all starts in this folder.
    fn shown(&self) -> String {
        std::fs::read_to_string(self.path().join("shown")).unwrap()
    }

    fn finished(&self, workflow: &str) -> usize {
        self.shown()
            .lines()
            .filter(|line| line.contains("succeeded") && line.contains(workflow))
            .count()
    }

    fn weir(&self, arguments: &[&str]) -> Output {
        weir(self.path()).args(arguments).output().unwrap()
    }

    fn ledger(&self) -> Value {
        let output = self.weir(&["demo", "ledger", "--json"]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", stdout(&output), stderr(&output)))
    }

    fn waiting(&self) -> Vec<Value> {
        let output = self.weir(&["runs", "--status", "waiting", "--json"]);
        stdout(&output)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// SIGKILL, as `kill -9 $(cat weir-demo/weir.pid)` does.
    fn crash(mut self) -> TempDir {
        let pid = std::fs::read_to_string(self.path().join("weir-demo/weir.pid")).unwrap();
        assert_eq!(pid.trim(), self.child.id().to_string());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Both end whatever happens: the server at once, the providers when their papers are gone.
        let _ended = self.child.kill().and_then(|()| self.child.wait().map(drop));
        let _gone = std::fs::remove_file(self.path().join("weir-demo/simulator.json"));
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path().join("weir-demo/weir.log")).unwrap_or_default();
            eprintln!("shown:\n{}\nlog:\n{log}", self.shown());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_five_minutes_end_well() {
    let demo = Demo::start_in(tempfile::tempdir().unwrap(), &["--rate", "5"]);

    // Flows of both kinds run within seconds, and each line names a run whose story can be read.
    eventually("two flows of both kinds", Duration::from_secs(10), async || {
        (demo.finished("payment-to-crm") >= 2 && demo.finished("deal-to-invoice") >= 2).then_some(())
    })
    .await;
    let shown = demo.shown();
    let line = shown
        .lines()
        .find(|line| line.contains("succeeded") && line.contains("payment-to-crm"))
        .unwrap();
    assert!(line.contains("read payment_intent, customer"), "{line}");
    assert!(line.contains("slack: chat.post_message 200"), "{line}");
    let run = line.split_whitespace().find(|word| word.starts_with("run_")).unwrap();
    let story = demo.weir(&["run", "show", run, "--bodies"]);
    let story = stdout(&story);
    for part in [
        "stripe.payment_intent.succeeded",
        "payment_intents.get",
        "contacts.search",
        "/api/chat.postMessage",
        "confirmed",
    ] {
        assert!(story.contains(part), "{part} is missing in\n{story}");
    }
    assert!(!story.contains("Bearer weir"), "{story}");

    // An impostor is refused, and the refusal is kept.
    let forged = demo.weir(&["demo", "forge"]);
    assert!(forged.status.success(), "{}{}", stdout(&forged), stderr(&forged));
    assert!(
        stdout(&forged).contains("401") && stdout(&forged).contains("bad_signature"),
        "{}",
        stdout(&forged)
    );

    // The CRM goes away: runs wait and say for how long; it comes back: they finish.
    assert!(demo.weir(&["demo", "crm", "stop"]).status.success());
    let waiting = eventually("runs wait for the CRM", SOON, async || {
        let waiting = demo.waiting();
        (waiting.len() >= 2).then_some(waiting)
    })
    .await;
    let id = waiting[0]["id"].as_str().unwrap();
    let story = stdout(&demo.weir(&["run", "show", id]));
    assert!(
        story.contains("tries again at") && story.contains("waits    until"),
        "{story}"
    );
    assert!(demo.weir(&["demo", "crm", "start"]).status.success());
    eventually("the waiting run finishes", SOON, async || {
        demo.shown()
            .lines()
            .any(|line| line.contains("succeeded") && line.contains(id))
            .then_some(())
    })
    .await;

    // A crash: the same command again takes everything up, and the providers' books balance.
    let before = demo.finished("payment-to-crm");
    let demo = Demo::start_in(demo.crash(), &["--rate", "5"]);
    eventually("payments go on after the crash", SOON, async || {
        (demo.finished("payment-to-crm") > before + 3).then_some(())
    })
    .await;
    assert!(
        demo.shown().contains("Back after a stop without warning"),
        "{}",
        demo.shown()
    );
    let books = eventually("the books balance", SOON, async || {
        let books = demo.ledger();
        (books["lost"] == 0).then_some(books)
    })
    .await;
    assert_eq!(books["doubled"], serde_json::json!([]), "{books}");
    assert_eq!(books["forged_accepted"], 0, "{books}");
    assert!(books["forged_refused"].as_u64().unwrap() >= 1, "{books}");
    assert!(books["payments_told"].as_u64().unwrap() >= 4, "{books}");

    // A contact whose creation the crash cut off is looked for when its request is sure to be over (30 s) and the
    // provider's search has settled (30 s).
    eventually(
        "what the crash cut off is followed up",
        Duration::from_secs(75),
        async || demo.waiting().is_empty().then_some(()),
    )
    .await;
    // A polite stop leaves nothing behind, and the books can still be read.
    let pid = demo.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut demo = demo;
    let status = eventually("the demo stops", SOON, async || demo.child.try_wait().unwrap()).await;
    assert!(status.success(), "{status}: {}", demo.shown());
    assert!(demo.shown().contains("no run was left unfinished"), "{}", demo.shown());
    let books = demo.ledger();
    assert_eq!(
        (&books["lost"], &books["under_way"]),
        (&Value::from(0), &Value::from(0)),
        "{books}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_moves_on_and_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let output = weir(folder.path())
        .args(["demo", "--for", "2", "--listen", &format!("127.0.0.1:{port}")])
        .output()
        .unwrap();
    let shown = stdout(&output);
    assert!(output.status.success(), "{shown}{}", stderr(&output));
    assert!(shown.contains(&format!("Port {port} is taken; using ")), "{shown}");
    assert!(shown.contains("succeeded"), "{shown}");
}
