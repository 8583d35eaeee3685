//! Binds the address, runs the workers, and stops without cutting anybody off.

use crate::auth::AdminToken;
use crate::measure::Answers;
use crate::shared::Shared;
use crate::{graphql, routes};
use actix_web::{App, HttpServer, web};
use secrecy::SecretString;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use weir_orchestrator::Orchestrator;

/// How long request headers may take: a sender that drips bytes holds a connection for nothing.
///
/// Limit: time for the headers of a request | 408, and the connection is closed | `senders_that_drip_are_sent_away`
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
/// How long an idle connection is kept. Longer than the 60 s of common load balancers, so that they close it, not we.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long requests under way may take once the server stops. Webhooks need milliseconds; GraphQL at most its own limit.
const STOP_PATIENCE_S: u64 = 12;

/// How the server listens.
#[derive(Clone)]
pub struct ServerOptions {
    /// Address and port. Port 0 takes a free one; see [`Server::local_addr`].
    pub listen: SocketAddr,
    /// Token with every permission. `None`: only API tokens are accepted.
    pub admin_token: Option<SecretString>,
    /// Makes the text of `/metrics` (Prometheus format).
    pub render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Worker threads for HTTP; 0 counts as 1. One is enough for a machine with few cores.
    pub workers: usize,
}

impl std::fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerOptions")
            .field("listen", &self.listen)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}")]
pub struct BindError {
    /// The address that was asked for.
    pub listen: SocketAddr,
    /// Why not: taken by another program, not ours, or not permitted.
    #[source]
    pub source: io::Error,
}

/// A server that has its port and waits to be run.
pub struct Server {
    inner: actix_web::dev::Server,
    address: SocketAddr,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Takes the port. Connections wait in the system's queue until [`Server::run`].
    ///
    /// # Errors
    /// [`BindError`] when the address is taken or not ours.
    ///
    /// # Panics
    /// Outside a tokio runtime. That runtime carries the GraphQL work and must outlive the server.
    pub fn bind(orchestrator: Orchestrator, options: ServerOptions) -> Result<Server, BindError> {
        let ServerOptions {
            listen,
            admin_token,
            render_metrics,
            workers,
        } = options;
        let shared = web::Data::new(Shared {
            schema: graphql::schema(),
            admin_token: AdminToken::new(admin_token.as_ref()),
            render_metrics,
            answers: Answers::default(),
            runtime: tokio::runtime::Handle::current(),
            orchestrator,
        });
        let server = HttpServer::new(move || App::new().app_data(shared.clone()).configure(routes::configure))
            .workers(workers.max(1))
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(HEADER_PATIENCE)
            .shutdown_timeout(STOP_PATIENCE_S)
            .tcp_nodelay(true)
            .disable_signals()
            .bind(listen)
            .map_err(|source| BindError { listen, source })?;
        let address = server.addrs().first().copied().unwrap_or(listen);
        Ok(Server {
            inner: server.run(),
            address,
        })
    }

    /// Where the server listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` resolves; then takes no more connections and finishes what is under way, for at most 12 s.
    ///
    /// # Errors
    /// When the listener or a worker fails for good.
    pub async fn run(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let Server { mut inner, .. } = self;
        let handle = inner.handle();
        tokio::select! {
            ended = &mut inner => return ended,
            () = stop => {}
        }
        let ((), ended) = tokio::join!(handle.stop(true), inner);
        ended
    }
}
