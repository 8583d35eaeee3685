//! The built-in connectors: manifests and the recorded cases that prove them.
//!
//! Everything here is data, embedded at build time; the built-ins have no privileges over manifests that a
//! partner writes, and no code of their own. A connector enters the list only with its cases: a genuine and a
//! forged webhook, a success, a retryable and a permanent failure.

/// One embedded connector.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// The connector's name, equal to `connector:` in its manifest.
    pub name: &'static str,
    /// The manifest's text.
    pub yaml: &'static str,
    /// Files that the manifest names (schemas, samples), by the path it names them with.
    pub files: &'static [(&'static str, &'static str)],
}

impl Builtin {
    /// The text of a file that the manifest names.
    pub fn file(&self, path: &str) -> Option<&'static str> {
        self.files.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
    }
}

/// The embedded connectors, sorted by name.
pub fn builtin() -> &'static [Builtin] {
    BUILTIN
}

/// The embedded connector with this name.
pub fn find(name: &str) -> Option<&'static Builtin> {
    BUILTIN.iter().find(|builtin| builtin.name == name)
}

static BUILTIN: &[Builtin] = &[
    Builtin {
        name: "airtable",
        yaml: include_str!("../manifests/airtable.yaml"),
        files: &[],
    },
    Builtin {
        name: "aws-sns",
        yaml: include_str!("../manifests/aws-sns.yaml"),
        files: &[],
    },
    Builtin {
        name: "calendly",
        yaml: include_str!("../manifests/calendly.yaml"),
        files: &[(
            "samples/calendly_invitee_created.json",
            include_str!("../manifests/samples/calendly_invitee_created.json"),
        )],
    },
    Builtin {
        name: "cloudevents",
        yaml: include_str!("../manifests/cloudevents.yaml"),
        files: &[],
    },
    Builtin {
        name: "generic",
        yaml: include_str!("../manifests/generic.yaml"),
        files: &[],
    },
    Builtin {
        name: "github",
        yaml: include_str!("../manifests/github.yaml"),
        files: &[(
            "samples/github_issues_opened.json",
            include_str!("../manifests/samples/github_issues_opened.json"),
        )],
    },
    Builtin {
        name: "google-pubsub",
        yaml: include_str!("../manifests/google-pubsub.yaml"),
        files: &[],
    },
    Builtin {
        name: "http",
        yaml: include_str!("../manifests/http.yaml"),
        files: &[],
    },
    Builtin {
        name: "hubspot",
        yaml: include_str!("../manifests/hubspot.yaml"),
        files: &[(
            "samples/hubspot_deal_property_change.json",
            include_str!("../manifests/samples/hubspot_deal_property_change.json"),
        )],
    },
    Builtin {
        name: "influxdb",
        yaml: include_str!("../manifests/influxdb.yaml"),
        files: &[],
    },
    Builtin {
        name: "intercom",
        yaml: include_str!("../manifests/intercom.yaml"),
        files: &[],
    },
    Builtin {
        name: "linear",
        yaml: include_str!("../manifests/linear.yaml"),
        files: &[],
    },
    Builtin {
        name: "microsoft-graph",
        yaml: include_str!("../manifests/microsoft-graph.yaml"),
        files: &[],
    },
    Builtin {
        name: "notion",
        yaml: include_str!("../manifests/notion.yaml"),
        files: &[],
    },
    Builtin {
        name: "open-meteo",
        yaml: include_str!("../manifests/open-meteo.yaml"),
        files: &[],
    },
    Builtin {
        name: "paypal",
        yaml: include_str!("../manifests/paypal.yaml"),
        files: &[],
    },
    Builtin {
        name: "pipedrive",
        yaml: include_str!("../manifests/pipedrive.yaml"),
        files: &[(
            "samples/pipedrive_change_deal.json",
            include_str!("../manifests/samples/pipedrive_change_deal.json"),
        )],
    },
    Builtin {
        name: "prometheus-pushgateway",
        yaml: include_str!("../manifests/prometheus-pushgateway.yaml"),
        files: &[],
    },
    Builtin {
        name: "salesforce",
        yaml: include_str!("../manifests/salesforce.yaml"),
        files: &[],
    },
    Builtin {
        name: "shopify",
        yaml: include_str!("../manifests/shopify.yaml"),
        files: &[],
    },
    Builtin {
        name: "slack",
        yaml: include_str!("../manifests/slack.yaml"),
        files: &[(
            "samples/slack_app_mention.json",
            include_str!("../manifests/samples/slack_app_mention.json"),
        )],
    },
    Builtin {
        name: "square",
        yaml: include_str!("../manifests/square.yaml"),
        files: &[(
            "samples/square_payment_updated.json",
            include_str!("../manifests/samples/square_payment_updated.json"),
        )],
    },
    Builtin {
        name: "standard-webhooks",
        yaml: include_str!("../manifests/standard-webhooks.yaml"),
        files: &[],
    },
    Builtin {
        name: "stripe",
        yaml: include_str!("../manifests/stripe.yaml"),
        files: &[
            (
                "samples/stripe_payment_intent_succeeded.json",
                include_str!("../manifests/samples/stripe_payment_intent_succeeded.json"),
            ),
            (
                "samples/stripe_meter_error_report.json",
                include_str!("../manifests/samples/stripe_meter_error_report.json"),
            ),
        ],
    },
    Builtin {
        name: "twilio",
        yaml: include_str!("../manifests/twilio.yaml"),
        files: &[],
    },
    Builtin {
        name: "zendesk",
        yaml: include_str!("../manifests/zendesk.yaml"),
        files: &[],
    },
];
