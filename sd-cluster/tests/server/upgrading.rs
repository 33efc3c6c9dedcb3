//! What of HTTP comes before the WebSocket.

use crate::raw::{CLOSE, Frame, asked, request};
use crate::{service, until};

#[tokio::test]
async fn what_is_no_request_of_a_module_is_answered_as_go_does() {
    let (_service, address) = service().await;
    let good = request("?module_name=a");
    for (request, status) in [
        (
            "GET /isp-etp/?module_name=a HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            "426",
        ),
        (good.replacen("GET", "POST", 1), "405"),
        (good.replacen("Version: 13", "Version: 12", 1), "400"),
        (good.replacen("dGhlIHNhbXBsZSBub25jZQ==", "short", 1), "400"),
        (good.replacen("/isp-etp/", "/elsewhere/", 1), "404"),
    ] {
        let (_, head) = asked(address, &request).await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}{head}"
        );
    }
    let (_, head) = asked(address, &good.replacen("/isp-etp/", "/isp-etp", 1)).await;
    assert!(head.starts_with("HTTP/1.1 307 "), "{head}");
    assert!(
        head.contains("location: /isp-etp/?module_name=a\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn a_module_is_accepted_at_any_path_below_without_an_extension() {
    let (service, address) = service().await;
    for path in ["", "foo/bar"] {
        let (_raw, head) = asked(
            address,
            &request(&format!("{path}?module_name=mod+b%26c&module_name=x")),
        )
        .await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // The example of RFC 6455, section 1.3.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        assert!(!head.to_lowercase().contains("extensions"), "{head}");
        until(&service, "mod b&c", |module| module.connections == 1).await;
    }
}

#[tokio::test]
async fn a_page_in_a_browser_is_refused() {
    let (service, address) = service().await;
    for origin in ["http://elsewhere", "null", ""] {
        let request = request("?module_name=a").replacen(
            "Host: h\r\n",
            &format!("Host: h\r\nOrigin: {origin}\r\n"),
            1,
        );
        let (_, head) = asked(address, &request).await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    }
    assert!(service.modules().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_connection_without_a_module_is_closed_in_order() {
    let (service, address) = service().await;
    for query in ["", "?module_name=", "?other=1"] {
        let (mut raw, _) = asked(address, &request(query)).await;
        let close = Frame {
            opcode: CLOSE,
            payload: vec![0x03, 0xe8],
        };
        assert_eq!(raw.next().await, Some(close), "{query}");
    }
    assert!(service.modules().await.unwrap().is_empty());
}
