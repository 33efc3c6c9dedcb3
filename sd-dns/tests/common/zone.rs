//! The zone of a real server, changed as an operator does it: by dynamic updates (RFC 2136).

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, SRV};
use hickory_resolver::proto::rr::{DNSClass, Label, Name, RData, Record, RecordType};
use sd_core::{Error, ErrorKind, Result};
use sd_testing::{ServerProcess, required_env};
use server_programs::{Knot, LocalServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A domain within the zone of a server.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    pub(crate) server: SocketAddr,
    pub(crate) domain: String,
}

/// A server of one's own.
pub(crate) async fn own_server() -> ServerProcess<Knot> {
    let program = Knot::from_env().unwrap();
    ServerProcess::launch(program).await.unwrap()
}

impl Zone {
    /// A domain that no other test uses, at the server that runs for all.
    pub(crate) fn shared() -> Self {
        let url = required_env("SD_TEST_DNS").unwrap();
        let server = url.trim_start_matches("dns://").parse().unwrap();
        Self::at(server)
    }

    /// A domain that no other test uses, at this server.
    pub(crate) fn at(server: SocketAddr) -> Self {
        let domain = format!("t{:08x}.{}", fastrand::u32(..), Knot::ZONE);
        Self { server, domain }
    }

    pub(crate) fn of(server: &ServerProcess<Knot>) -> Self {
        Self::at(server.program().address())
    }

    /// The name of what `text` names in this domain.
    pub(crate) fn name(&self, text: &str) -> Name {
        let whole = format!("{text}.{}", self.domain);
        let labels = whole.split_terminator('.').map(|label| {
            if label.is_ascii() {
                Label::from_raw_bytes(label.as_bytes()).unwrap()
            } else {
                Label::from_utf8(label).unwrap()
            }
        });
        Name::from_labels(labels).unwrap()
    }

    pub(crate) async fn add(&self, name: &str, ttl: u32, data: &[RData]) {
        let records = data.iter();
        let records = records.map(|data| Record::from_rdata(self.name(name), ttl, data.clone()));
        self.update(records.collect()).await.unwrap();
    }

    pub(crate) async fn remove(&self, name: &str, data: &RData) {
        self.update(vec![self.removal(name, data)]).await.unwrap();
    }

    /// What removes one record.
    pub(crate) fn removal(&self, name: &str, data: &RData) -> Record {
        let mut record = Record::from_rdata(self.name(name), 0, data.clone());
        record.dns_class = DNSClass::NONE;
        record
    }

    /// Removes all records of a name.
    pub(crate) async fn remove_name(&self, name: &str) {
        let mut record = Record::update0(self.name(name), 0, RecordType::ANY);
        record.dns_class = DNSClass::ANY;
        let all = record.into_record_of_rdata();
        self.update(vec![all]).await.unwrap();
    }

    /// Sends all of these changes at once.
    pub(crate) async fn update(&self, changes: Vec<Record>) -> Result<()> {
        let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Update);
        let zone = Name::from_ascii(Knot::ZONE).unwrap();
        message.add_query(Query::query(zone, RecordType::SOA));
        message.authorities = changes;
        let answer = self.ask(&message).await.map_err(|error| failed(&error))?;
        match answer.metadata.response_code {
            ResponseCode::NoError => Ok(()),
            code => Err(failed(&code)),
        }
    }

    async fn ask(&self, message: &Message) -> std::io::Result<Message> {
        let bytes = message.to_vec().unwrap();
        let mut stream = TcpStream::connect(self.server).await?;
        stream
            .write_u16(u16::try_from(bytes.len()).unwrap())
            .await?;
        stream.write_all(&bytes).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        Ok(Message::from_vec(&answer).unwrap())
    }
}

fn failed(why: &impl ToString) -> Error {
    Error::new(ErrorKind::Unavailable, "change zone").because(why.to_string())
}

/// A name in full.
pub(crate) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(crate) fn address(text: &str) -> RData {
    let address: IpAddr = text.parse().unwrap();
    address.into()
}

/// `count` addresses, all different.
pub(crate) fn many(count: u32) -> Vec<RData> {
    let address = |number: u32| IpAddr::V4((0x0a00_0001 + number).into()).into();
    (0..count).map(address).collect()
}

pub(crate) fn srv(priority: u16, weight: u16, port: u16, target: &Name) -> RData {
    RData::SRV(SRV::new(priority, weight, port, target.clone()))
}

pub(crate) fn alias(to: &Name) -> RData {
    RData::CNAME(CNAME(to.clone()))
}
