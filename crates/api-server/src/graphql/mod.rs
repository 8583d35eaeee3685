//! The GraphQL admin API: one schema over the configuration, events and runs.
//!
//! A resolver asks for its permission, makes one call of the store (to read) or the orchestrator (to write), and maps the
//! answer. Rules about events, runs and documents live elsewhere.

mod caller;
mod errors;
pub(crate) mod http;
mod limits;
mod mutation;
mod negotiate;
mod paging;
mod query;
mod scalars;
mod types;
mod user_error;

use async_graphql::{EmptySubscription, SDLExportOptions, Schema};
use errors::StageWatch;
use mutation::Mutation;
use query::Query;

/// The schema with its resolvers. Clones are cheap.
pub(crate) type ApiSchema = Schema<Query, Mutation, EmptySubscription>;

/// Builds the schema. What resolvers need comes with each request.
pub(crate) fn schema() -> ApiSchema {
    Schema::build(Query, Mutation::default(), EmptySubscription)
        .extension(StageWatch)
        .finish()
}

/// The schema in GraphQL's definition language, as committed in `schema.graphql`.
pub fn schema_sdl() -> String {
    schema().sdl_with_options(
        SDLExportOptions::new()
            .sorted_enum_items()
            .include_specified_by()
            .use_space_ident()
            .prefer_single_line_descriptions(),
    )
}
