//! HTTPS probes, in a process of their own: TLS takes more memory than a shim has.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;

/// `https IP PORT REQUEST`: ends with 0 where the status is from 200 to 399. The shim ends it when it takes too long.
pub(super) fn probe(args: Vec<OsString>) -> u8 {
    let mut args = args.into_iter().map(|arg| arg.into_string().unwrap_or_default());
    let (Some(ip), Some(port), Some(request)) = (args.next(), args.next(), args.next()) else {
        return 2;
    };
    let (Ok(ip), Ok(port)) = (ip.parse(), port.parse()) else {
        return 2;
    };
    match get(ip, port, &request) {
        Some(200..=399) => 0,
        _ => 1,
    }
}

/// Sends a request and gives the status of the answer.
fn get(ip: IpAddr, port: u16, request: &str) -> Option<u16> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Anyone(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), ServerName::IpAddress(ip.into())).ok()?;
    let mut stream = StreamOwned::new(connection, TcpStream::connect((ip, port)).ok()?);
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 256];
    loop {
        if let Some(status) = super::probe::net::status(&answer) {
            return status.ok();
        }
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => answer.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}

/// Takes any certificate, as kubelet does: a probe asks whether the pod answers, not who it is.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ServerConfig, ServerConnection};
    use std::net::{Ipv4Addr, TcpListener};

    fn serve(answer: &'static str) -> u16 {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["elsewhere".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (peer, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), peer);
            let mut request = [0; 512];
            // A client that does not speak TLS is the test's own fault and seen there.
            if stream.read(&mut request).is_ok() {
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        port
    }

    #[test]
    fn any_certificate_will_do_but_the_status_counts() {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let ask = |answer| get(local, serve(answer), "GET / HTTP/1.1\r\n\r\n");
        assert_eq!(ask("HTTP/1.1 204 Fine\r\n\r\n"), Some(204));
        assert_eq!(ask("HTTP/1.1 500 No\r\n\r\n"), Some(500));
        assert_eq!(ask("nonsense\r\n"), None);
    }
}
