//! People: one row each. The name is theirs to have erased; records never hold it.

use avouch_domain::{Person, PersonState, Row, SignIn};
use rusqlite::types::Value;

use super::{Bad, Fields, Statements, bad, flag, person_or_null, text};

pub(super) const STATEMENTS: Statements = Statements {
    table: "people",
    put: "INSERT INTO people (id, name, uid, security, state, added_by, yes_by, added_at, issuer, \
          subject) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
          ON CONFLICT (id) DO UPDATE SET name = excluded.name, uid = excluded.uid, security = excluded.security, \
          state = excluded.state, added_by = excluded.added_by, yes_by = excluded.yes_by, \
          added_at = excluded.added_at, issuer = excluded.issuer, subject = excluded.subject",
    delete: "DELETE FROM people WHERE id = ?1",
    get: "SELECT * FROM people WHERE id = ?1",
    all: "SELECT * FROM people ORDER BY id",
    read,
};

pub(super) fn values(person: &Person) -> Vec<Value> {
    let sign_in = person.sign_in.as_ref();
    vec![
        text(person.id.as_str()),
        text(&person.name),
        person.uid.map_or(Value::Null, |uid| Value::Integer(uid.into())),
        flag(person.security),
        text(person.state.name()),
        person_or_null(person.added_by.as_ref()),
        person_or_null(person.yes_by.as_ref()),
        Value::Integer(person.added_at.0),
        sign_in.map_or(Value::Null, |sign_in| text(sign_in.issuer.as_str())),
        sign_in.map_or(Value::Null, |sign_in| text(sign_in.subject.as_str())),
    ]
}

fn read(fields: &mut Fields<'_>) -> Result<Row, Bad> {
    Ok(Row::Person(Person {
        id: fields.person()?,
        name: fields.parse(avouch_domain::person::person_name)?,
        uid: fields.take()?,
        security: fields.take()?,
        state: fields.name(PersonState::from_name)?,
        added_by: fields.person_or_none()?,
        yes_by: fields.person_or_none()?,
        added_at: fields.time()?,
        sign_in: sign_in(fields)?,
    }))
}

fn sign_in(fields: &mut Fields<'_>) -> Result<Option<SignIn>, Bad> {
    let (issuer, subject): (Option<String>, Option<String>) = (fields.take()?, fields.take()?);
    SignIn::read(&issuer.unwrap_or_default(), &subject.unwrap_or_default()).map_err(bad)
}
