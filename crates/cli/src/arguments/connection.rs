//! Arguments of `weir connection`.

use super::ServerArguments;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectionCommand {
    /// List the connections and whether they can be used.
    #[command(after_help = "Example:
  weir connection list")]
    List {
        #[command(flatten)]
        server: ServerArguments,
        /// As JSON, one per line.
        #[arg(long)]
        json: bool,
    },
    /// Show a connection's access, its budget and circuit breaker, as the server that answers counts them.
    #[command(after_help = "Example:
  weir connection show stripe")]
    Show {
        #[command(flatten)]
        server: ServerArguments,
        /// The connection.
        #[arg(value_name = "NAME")]
        name: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give the address at the provider where a person lets a connection in, also again.
    #[command(
        after_help = "The address works once, for half an hour; open it in a browser. The provider sends the person back to
WEIR_PUBLIC_URL/oauth/callback, which the app at the provider has to know as a redirect URL. A connection that needs it again
goes on under its name, and so do the runs that wait for it.

Examples:
  weir connection authorize crm
  weir connection authorize crm --another-account"
    )]
    Authorize {
        #[command(flatten)]
        server: ServerArguments,
        /// The connection.
        #[arg(value_name = "NAME")]
        name: String,
        /// Take another account than the one that the connection has.
        #[arg(long)]
        another_account: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a connection's access back to the provider and forget its tokens.
    #[command(
        after_help = "What calls over it waits until it is connected again. Where its credential logs in by itself, the session of this
server ends, and the next call begins another one.

Example:
  weir connection disconnect crm"
    )]
    Disconnect {
        #[command(flatten)]
        server: ServerArguments,
        /// The connection.
        #[arg(value_name = "NAME")]
        name: String,
    },
}
