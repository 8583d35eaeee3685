//! How one text of a statement becomes the two that SQLite and PostgreSQL want.
//!
//! The placeholders, each a column type:
//! `{id}` a 64-bit primary key · `{big}` 64 bits · `{int}` 32 bits · `{small}` 16 bits · `{bytes}` a blob ·
//! `{strict}` and `{clustered}` the options at the end of a SQLite table. On SQLite every table is strict (a
//! value of the wrong type is refused), and `{id}` must read `INTEGER PRIMARY KEY`, else the key becomes a
//! second B-tree beside the table.

use sea_orm_migration::prelude::{DbErr, SchemaManager};
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend};

/// Runs the statements in order, with the placeholders filled in for the database at hand.
pub(crate) async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    let connection = manager.get_connection();
    let sqlite = connection.get_database_backend() == DbBackend::Sqlite;
    for statement in statements {
        connection.execute_unprepared(&render(statement, sqlite)).await?;
    }
    Ok(())
}

/// Statements that only PostgreSQL knows.
pub(crate) async fn run_on_postgres(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    if manager.get_connection().get_database_backend() == DbBackend::Postgres {
        run(manager, statements).await?;
    }
    Ok(())
}

fn render(statement: &str, sqlite: bool) -> String {
    let words: [(&str, &str, &str); 7] = [
        ("{id}", "INTEGER PRIMARY KEY", "BIGINT PRIMARY KEY"),
        ("{big}", "INTEGER", "BIGINT"),
        ("{int}", "INTEGER", "INTEGER"),
        ("{small}", "INTEGER", "SMALLINT"),
        ("{bytes}", "BLOB", "BYTEA"),
        ("{strict}", " STRICT", ""),
        ("{clustered}", " STRICT, WITHOUT ROWID", ""),
    ];
    words
        .iter()
        .fold(statement.to_owned(), |text, (word, on_sqlite, on_postgres)| {
            text.replace(word, if sqlite { on_sqlite } else { on_postgres })
        })
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn each_database_gets_its_own_types() {
        let text = "CREATE TABLE t (id {id}, body {bytes}, state {small} NOT NULL){strict}";
        assert_eq!(
            render(text, true),
            "CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB, state INTEGER NOT NULL) STRICT"
        );
        assert_eq!(
            render(text, false),
            "CREATE TABLE t (id BIGINT PRIMARY KEY, body BYTEA, state SMALLINT NOT NULL)"
        );
    }
}
