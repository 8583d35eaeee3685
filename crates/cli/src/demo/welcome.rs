//! What `weir demo` prints around the runs: where to look, what to try, how it ended.

use crate::client::Client;
use crate::demo::folder::{DemoFolder, FLOW_FILES};
use crate::demo::simulator::Providers;
use crate::output::{self, Style};
use serde_json::Value;

/// A command as it can be typed here: with the path by which this executable was called.
pub(crate) fn command(arguments: &str) -> String {
    let program = std::env::args().next().unwrap_or_default();
    let known = program.is_empty() || program == "weir" || program.ends_with("/bin/weir");
    format!("{} {arguments}", if known { "weir" } else { &program })
}

/// Where everything is, and what to try.
pub(crate) fn print(folder: &DemoFolder, client: &Client, providers: &Providers) -> anyhow::Result<()> {
    let style = Style::stdout();
    let url = client.url();
    let token = folder.data.admin_token();
    let say = |label: &str, text: String| output::line(format!("  {}{text}", style.dim(format!("{label:<11}"))));
    output::line(style.bold("Weir demo: a server, simulated Stripe, HubSpot and Slack, and two flows that run."));
    say("server", format!("{url}   (browser: {url}/graphiql)"));
    say(
        "token",
        // The demo's own, for simulated providers on this machine: it is meant to be pasted into GraphiQL.
        format!(
            "{}   (`weir` commands typed here find it by themselves)",
            std::fs::read_to_string(&token)?.trim()
        ),
    );
    for flow in FLOW_FILES {
        say("flow", folder.flows().join(flow).display().to_string());
    }
    say(
        "providers",
        format!("{}   (loopback; a process of their own)", providers.url),
    );
    say("log", folder.log().display().to_string());
    output::line("");
    output::line(style.bold("Try, in another terminal:"));
    let commands = [
        (
            command("run show RUN"),
            "the whole story of a run; copy an id from below",
        ),
        (command("demo forge"), "a webhook with a forged signature"),
        (
            command("demo crm stop"),
            "the CRM goes away: runs wait (then: demo crm start)",
        ),
        (
            format!("kill -9 $(cat {})", folder.data.pid().display()),
            "a crash; start the demo again afterwards",
        ),
        (
            command("demo ledger"),
            "what the providers really saw: nothing lost or doubled",
        ),
    ];
    let width = commands
        .iter()
        .map(|(command, _)| command.chars().count())
        .max()
        .unwrap_or_default();
    for (command, what) in commands {
        output::line(format!("  {command:<width$}   {}", style.dim(what)));
    }
    output::line("");
    output::line(style.dim("A question to the API, and a signed webhook, by hand:"));
    output::line(format!(
        "  curl -s {url}/graphql -H \"Authorization: Bearer $(cat {})\" -H 'Content-Type: application/json' \\\n    \
         -d '{{\"query\":\"{{ runs(first: 3) {{ nodes {{ id status workflow {{ name }} }} }} }}\"}}'",
        token.display()
    ));
    output::line(signed_webhook(folder, url)?);
    output::line("");
    output::line(style.bold("Runs as they finish (Ctrl-C stops the demo):"));
    Ok(())
}

/// A shell line that signs a Stripe event the way Stripe does, at the moment it is run.
fn signed_webhook(folder: &DemoFolder, url: &str) -> anyhow::Result<String> {
    // A payment of its own each second, with a number that the streams never reach: twelve digits behind the seed.
    let seed = folder.identity()?.seed;
    let secret = folder.flows().join("local/stripe-webhook-secret");
    Ok(format!(
        "  T=$(date +%s); E='{{\"id\":\"evt_by_hand_'$T'\",\"type\":\"payment_intent.succeeded\",\"created\":'$T',\"data\":{{\"object\":{{\"id\":\"pi_sim{seed:08x}90'$T'\",\"object\":\"payment_intent\"}}}}}}'\n  \
         curl -si {url}/hooks/main/stripe -d \"$E\" -H \"Stripe-Signature: t=$T,v1=$(printf '%s.%s' $T \"$E\" | openssl dgst -sha256 -hmac \"$(cat {})\" -r | cut -d' ' -f1)\"",
        secret.display()
    ))
}

/// After a crash: the providers have been waiting for the server.
pub(crate) async fn print_return(providers: &Providers) -> anyhow::Result<()> {
    let streams: Value = providers.get("streams").await?;
    let waiting: u64 = streams
        .as_array()
        .into_iter()
        .flatten()
        .map(|stream| {
            let count = |name: &str| stream["status"][name].as_u64().unwrap_or_default();
            count("happened").saturating_sub(count("finished"))
        })
        .sum();
    let style = Style::stdout();
    output::line(style.yellow(format!(
        "Back after a stop without warning. The providers kept running; {waiting} webhooks wait there and come in now."
    )));
    output::line(style.dim("Runs that were under way go on where they stopped; they are marked `taken up again`."));
    Ok(())
}

/// How it ended.
pub(crate) fn print_farewell(open: usize) {
    if open == 0 {
        output::line("Stopped; no run was left unfinished.");
    } else {
        output::line(format!(
            "Stopped; {open} runs are not finished and go on at the next start."
        ));
    }
}
