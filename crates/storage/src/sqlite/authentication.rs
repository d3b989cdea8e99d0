//! The rows of the Authentication Service (`migrations/as_*.sql`).

use conclave_authentication::store::{ClientRow, InviteRow, LinkApproval, LinkRow, StoreError, Tx, UserRow};
use conclave_mls::credential::IdentityBinding;
use conclave_names::{ClientUri, Timestamp, UserUri};
use rusqlite::Row;

use super::transaction::{Transaction, client_at, decoded, name, number, stored, time};

impl Tx for Transaction<'_> {
    fn user(&mut self, user: &UserUri) -> Result<Option<UserRow>, StoreError> {
        let sql = "SELECT user, identity_key, registered FROM as_users WHERE user = ?1";
        Ok(self.first(sql, [user.to_string()], |row| {
            Ok(UserRow { user: name(row, 0)?, identity_key: row.get(1)?, registered: time(row, 2)? })
        })?)
    }

    fn put_user(&mut self, row: &UserRow) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO as_users (user, identity_key, registered) VALUES (?1, ?2, ?3)
             ON CONFLICT (user) DO UPDATE SET identity_key = excluded.identity_key, registered = excluded.registered",
            (row.user.to_string(), row.identity_key, stored(row.registered.0)),
        )?;
        Ok(())
    }

    fn client(&mut self, client: &ClientUri) -> Result<Option<ClientRow>, StoreError> {
        let sql = "SELECT user, device, signature_key, not_after_secs, registered FROM as_clients
                   WHERE user = ?1 AND device = ?2";
        Ok(self.first(sql, (client.user().to_string(), client.device()), client_row)?)
    }

    fn clients_of(&mut self, user: &UserUri) -> Result<Vec<ClientRow>, StoreError> {
        let sql = "SELECT user, device, signature_key, not_after_secs, registered FROM as_clients
                   WHERE user = ?1 ORDER BY device";
        Ok(self.all(sql, [user.to_string()], client_row)?)
    }

    fn count_clients(&mut self, user: &UserUri) -> Result<u64, StoreError> {
        Ok(self.number("SELECT count(*) FROM as_clients WHERE user = ?1", [user.to_string()])?)
    }

    fn put_client(&mut self, row: &ClientRow) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO as_clients (user, device, signature_key, not_after_secs, registered)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (user, device) DO UPDATE SET
                signature_key = excluded.signature_key,
                not_after_secs = excluded.not_after_secs,
                registered = excluded.registered",
            (
                row.client.user().to_string(),
                row.client.device(),
                row.signature_key,
                stored(row.not_after_secs),
                stored(row.registered.0),
            ),
        )?;
        Ok(())
    }

    fn put_former_key(&mut self, client: &ClientUri, key: &[u8; 32]) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO as_former_keys (user, device, signature_key) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            (client.user().to_string(), client.device(), key),
        )?;
        Ok(())
    }

    fn is_former_key(&mut self, client: &ClientUri, key: &[u8; 32]) -> Result<bool, StoreError> {
        let sql = "SELECT count(*) FROM as_former_keys WHERE user = ?1 AND device = ?2 AND signature_key = ?3";
        Ok(self.number(sql, (client.user().to_string(), client.device(), key))? > 0)
    }

    fn invite(&mut self, token_hash: &[u8; 32]) -> Result<Option<InviteRow>, StoreError> {
        let sql = "SELECT token_hash, uses_left, expires FROM as_invites WHERE token_hash = ?1";
        Ok(self.first(sql, [token_hash], |row| {
            Ok(InviteRow { token_hash: row.get(0)?, uses_left: row.get(1)?, expires: time(row, 2)? })
        })?)
    }

    fn put_invite(&mut self, row: &InviteRow) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO as_invites (token_hash, uses_left, expires) VALUES (?1, ?2, ?3)
             ON CONFLICT (token_hash) DO UPDATE SET uses_left = excluded.uses_left, expires = excluded.expires",
            (row.token_hash, row.uses_left, stored(row.expires.0)),
        )?;
        Ok(())
    }

    fn link(&mut self, link_id: &[u8; 16]) -> Result<Option<LinkRow>, StoreError> {
        let sql = "SELECT user, device, link_id, signature_key, mac, approval_binding, approval_mac, expires
                   FROM as_links WHERE link_id = ?1";
        Ok(self.first(sql, [link_id], |row| {
            let approval = match row.get(6)? {
                None => None,
                Some(mac) => {
                    let binding = decoded(row, 5, |bytes| IdentityBinding::from_bytes(bytes).ok())?;
                    Some(LinkApproval { binding, mac })
                }
            };
            Ok(LinkRow {
                client: client_at(row, 0, 1)?,
                link_id: row.get(2)?,
                signature_key: row.get(3)?,
                mac: row.get(4)?,
                approval,
                expires: time(row, 7)?,
            })
        })?)
    }

    fn count_links(&mut self, user: &UserUri, now: Timestamp) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM as_links WHERE user = ?1 AND expires > ?2";
        Ok(self.number(sql, (user.to_string(), stored(now.0)))?)
    }

    fn put_link(&mut self, row: &LinkRow) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO as_links
                (link_id, user, device, signature_key, mac, approval_binding, approval_mac, expires)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (link_id) DO UPDATE SET
                user = excluded.user,
                device = excluded.device,
                signature_key = excluded.signature_key,
                mac = excluded.mac,
                approval_binding = excluded.approval_binding,
                approval_mac = excluded.approval_mac,
                expires = excluded.expires",
            (
                row.link_id,
                row.client.user().to_string(),
                row.client.device(),
                row.signature_key,
                row.mac,
                row.approval.as_ref().map(|approval| approval.binding.to_bytes()),
                row.approval.as_ref().map(|approval| approval.mac),
                stored(row.expires.0),
            ),
        )?;
        Ok(())
    }

    fn drop_oldest_link(&mut self, user: &UserUri, now: Timestamp) -> Result<bool, StoreError> {
        let dropped = self.execute(
            "DELETE FROM as_links WHERE link_id = (
                SELECT link_id FROM as_links WHERE user = ?1 AND expires > ?2 AND approval_binding IS NULL
                ORDER BY expires, link_id LIMIT 1)",
            (user.to_string(), stored(now.0)),
        )?;
        Ok(dropped == 1)
    }

    fn note_nonce(&mut self, key: &[u8; 32], nonce: &[u8; 16], expires: Timestamp) -> Result<bool, StoreError> {
        let noted = self.execute(
            "INSERT INTO as_nonces (key, nonce, expires) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            (key, nonce, stored(expires.0)),
        )?;
        Ok(noted == 1)
    }

    fn prune(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let now = stored(now.0);
        self.execute("DELETE FROM as_nonces WHERE expires <= ?1", [now])?;
        self.execute("DELETE FROM as_links WHERE expires <= ?1", [now])?;
        self.execute("DELETE FROM as_invites WHERE expires <= ?1 OR uses_left = 0", [now])?;
        Ok(())
    }
}

/// Columns: user, device, signature_key, not_after_secs, registered.
fn client_row(row: &Row<'_>) -> rusqlite::Result<ClientRow> {
    Ok(ClientRow {
        client: client_at(row, 0, 1)?,
        signature_key: row.get(2)?,
        not_after_secs: number(row, 3)?,
        registered: time(row, 4)?,
    })
}
