//! The provider at which people sign in to the pages, made ready: its client's secret, and who vouches for it.
//!
//! Never asks the provider anything: one that is down keeps no server from starting.

use std::path::Path;

use avouch::secret_file;
use avouch_signin::{Client, Provider};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::config::SignInConfig;

/// Makes the provider for pages at `base`.
///
/// # Errors
/// One sentence on what was expected and what is there.
pub fn provider(config: &SignInConfig, base: &str) -> Result<Provider, String> {
    let secret = config.secret_file.as_deref().map(secret_file::read).transpose();
    let secret = secret.map_err(|e| format!("console_client_secret_file: {e}"))?;
    let client = Client {
        issuer: config.issuer.clone(),
        id: config.client_id.clone(),
        secret: secret.map(|file| file.secret),
        redirect: format!("{base}/signed-in"),
        after: format!("{base}/"),
        roots: roots(config)?,
    };
    Provider::new(client).map_err(|e| e.to_string())
}

fn roots(config: &SignInConfig) -> Result<Vec<CertificateDer<'static>>, String> {
    match &config.ca_file {
        Some(file) => pem(file).map_err(|e| format!("console_ca_file {}: {e}", file.display())),
        // Without TLS nobody vouches.
        None if config.issuer.as_str().starts_with("http://") => Ok(Vec::new()),
        None => {
            let roots = rustls_native_certs::load_native_certs().certs;
            let none = "nothing vouches for the provider: install the package of CA certificates, or set console_ca_file";
            if roots.is_empty() { Err(none.to_owned()) } else { Ok(roots) }
        }
    }
}

fn pem(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(file).map_err(|e| e.to_string())?;
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match roots {
        Ok(roots) if roots.is_empty() => {
            Err("it holds no certificate, expected one or more as PEM".to_owned())
        }
        Ok(roots) => Ok(roots),
        Err(error) => Err(format!("expected certificates as PEM: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use avouch_domain::Issuer;

    use super::*;

    fn config() -> SignInConfig {
        SignInConfig {
            issuer: Issuer::new("http://127.0.0.1:3000").unwrap(),
            client_id: "avouch".into(),
            secret_file: None,
            ca_file: None,
            host: None,
        }
    }

    fn why(config: &SignInConfig) -> String {
        provider(config, "http://127.0.0.1:8090").map(drop).unwrap_err()
    }

    #[test]
    fn a_secret_that_others_could_read_and_a_file_without_certificates_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        std::fs::write(&path, "s3cret-text\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let secret = SignInConfig { secret_file: Some(path.clone()), ..config() };
        mode(0o644);
        assert!(why(&secret).contains("console_client_secret_file") && why(&secret).contains("chmod 600"));
        mode(0o600);
        assert!(provider(&secret, "http://127.0.0.1:8090").is_ok());
        let roots = SignInConfig { ca_file: Some(path), ..config() };
        assert!(why(&roots).contains("holds no certificate"), "{}", why(&roots));
        let missing = SignInConfig { ca_file: Some(home.path().join("none")), ..config() };
        assert!(why(&missing).contains("console_ca_file"), "{}", why(&missing));
    }
}
