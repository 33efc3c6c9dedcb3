//! What a message says about the name and type that were asked, and nothing else that is in it.

use std::net::IpAddr;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use sd_core::ErrorKind;

use crate::client::error::Failure;

/// How many aliases are followed from one name.
pub(crate) const MOST_ALIASES: usize = 8;

/// An answer to a question.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Found {
        records: Vec<RData>,
        /// Addresses of other names that came along, and for how many seconds each holds.
        addresses: Vec<(Name, IpAddr, u32)>,
        /// For how many seconds this holds.
        ttl: u32,
    },
    /// The name does not exist, or has no such records.
    None {
        exists: bool,
        /// For how many seconds this holds, if the server says so (RFC 2308).
        ttl: Option<u32>,
    },
}

impl Answer {
    /// The same, which holds for no longer than `most` seconds.
    pub(crate) fn for_at_most(mut self, most: u32) -> Self {
        match &mut self {
            Self::Found { ttl, .. } => *ttl = most.min(*ttl),
            Self::None { ttl, .. } => *ttl = ttl.map(|ttl| most.min(ttl)),
        }
        self
    }
}

/// An answer, or another name to be asked for it.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    Answer(Answer),
    Alias {
        to: Name,
        ttl: u32,
        /// How many aliases lead there.
        followed: usize,
    },
}

/// The longest time-to-live; one with the highest bit set counts as 0 (RFC 2181, section 8).
const LONGEST_TTL: u32 = i32::MAX.cast_unsigned();

/// Reads what `message` says about `name`. Records of other names count only if an alias leads there.
///
/// # Errors
/// `InvalidData` if it answers for other names alone, or its aliases lead in a circle or too far. `Rejected` if it names servers that could
/// be asked instead.
pub(crate) fn read(message: &Message, name: &Name, wanted: RecordType) -> Result<Step, Failure> {
    let (mut current, mut ttl) = (name, LONGEST_TTL);
    for followed in 0..=MOST_ALIASES {
        let (found, least) = of_type(message, current, wanted);
        if !found.is_empty() {
            return Ok(Step::Answer(Answer::Found {
                records: found,
                addresses: addresses(&message.additionals),
                ttl: ttl.min(least),
            }));
        }
        let Some((alias, to)) = alias(message, current) else {
            return end_of_aliases(message, name, (current, followed), ttl);
        };
        ttl = ttl.min(seconds(alias));
        current = to;
    }
    Err(circle(name))
}

pub(crate) fn circle(name: &Name) -> Failure {
    let why = format!(
        "the aliases of {} lead in a circle, or too far",
        name.to_ascii()
    );
    Failure::new(ErrorKind::InvalidData, why)
}

fn end_of_aliases(
    message: &Message,
    name: &Name,
    (end, followed): (&Name, usize),
    ttl: u32,
) -> Result<Step, Failure> {
    let negative = message
        .authorities
        .iter()
        .find_map(|record| match &record.data {
            RData::SOA(soa) => Some(seconds(record).min(soa.minimum)),
            _ => None,
        });
    let is_missing = message.metadata.response_code == ResponseCode::NXDomain;
    let is_open = !is_missing && negative.is_none();
    if followed > 0 && is_open {
        let to = end.clone();
        return Ok(Step::Alias { to, ttl, followed });
    }
    if followed == 0 && !message.answers.is_empty() {
        let why = format!("answered for other names than {}", name.to_ascii());
        return Err(Failure::new(ErrorKind::InvalidData, why));
    }
    if is_open && is_referral(message) {
        let why = "named other servers instead of asking them: name a resolver that looks names up";
        return Err(Failure::new(ErrorKind::Rejected, why));
    }
    Ok(Step::Answer(Answer::None {
        exists: !is_missing,
        ttl: negative.map(|negative| negative.min(ttl)),
    }))
}

/// Whether a server that does not know the name says who may (RFC 2308, section 2.2).
fn is_referral(message: &Message) -> bool {
    let names_servers = |record: &Record| record.record_type() == RecordType::NS;
    !message.metadata.authoritative && message.authorities.iter().any(names_servers)
}

/// The records of this name and type, and their least time-to-live.
fn of_type(message: &Message, name: &Name, wanted: RecordType) -> (Vec<RData>, u32) {
    let records = message.answers.iter();
    let records = records.filter(|record| {
        let is_asked_for = record.record_type() == wanted && record.name == *name;
        is_asked_for && record.dns_class == DNSClass::IN
    });
    let (data, ttls): (Vec<_>, Vec<_>) = records
        .map(|record| (record.data.clone(), seconds(record)))
        .unzip();
    (data, ttls.into_iter().min().unwrap_or(LONGEST_TTL))
}

fn alias<'a>(message: &'a Message, name: &Name) -> Option<(&'a Record, &'a Name)> {
    let mut records = message.answers.iter().filter(|record| record.name == *name);
    records.find_map(|record| match &record.data {
        RData::CNAME(to) => Some((record, &to.0)),
        _ => None,
    })
}

fn seconds(record: &Record) -> u32 {
    if record.ttl > LONGEST_TTL {
        0
    } else {
        record.ttl
    }
}

fn addresses(records: &[Record]) -> Vec<(Name, IpAddr, u32)> {
    let address = |record: &Record| {
        let address = record.data.ip_addr()?;
        Some((record.name.clone(), address, seconds(record)))
    };
    records.iter().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_resolver::proto::op::OpCode;
    use hickory_resolver::proto::rr::rdata::{A, CNAME, NS, SOA};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_str(text).unwrap()
    }

    fn a(owner: &str, ttl: u32, last: u8) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A::new(10, 0, 0, last)))
    }

    fn cname(owner: &str, ttl: u32, to: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(to))))
    }

    fn soa(ttl: u32, minimum: u32) -> Record {
        let soa = SOA::new(name("m."), name("r."), 1, 1, 1, 1, minimum);
        Record::from_rdata(name("d."), ttl, RData::SOA(soa))
    }

    fn message(answers: Vec<Record>) -> Message {
        let mut message = Message::response(1, OpCode::Query);
        message.answers = answers;
        message
    }

    fn asked(message: &Message) -> Result<Step, Failure> {
        read(message, &name("s.d."), RecordType::A)
    }

    fn found(message: &Message) -> (usize, u32) {
        match asked(message).unwrap() {
            Step::Answer(Answer::Found { records, ttl, .. }) => (records.len(), ttl),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn records_of_the_name_count_and_others_do_not() {
        let answered = message(vec![a("S.D.", 9, 1), a("s.d.", 7, 2), a("other.d.", 1, 3)]);
        assert_eq!(found(&answered), (2, 7));
        let error = asked(&message(vec![a("other.d.", 1, 3)])).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidData);
    }

    #[test]
    fn an_alias_is_followed_and_its_ttl_counts() {
        let chain = vec![
            a("z.d.", 60, 1),
            cname("s.d.", 30, "y.d."),
            cname("y.d.", 5, "z.d."),
        ];
        assert_eq!(found(&message(chain)), (1, 5));
        let open = message(vec![cname("s.d.", 30, "y.e.")]);
        let to = name("y.e.");
        let step = Step::Alias {
            to,
            ttl: 30,
            followed: 1,
        };
        assert_eq!(asked(&open).unwrap(), step);
        let circle = vec![cname("s.d.", 30, "y.d."), cname("y.d.", 5, "s.d.")];
        let error = asked(&message(circle)).unwrap_err();
        assert!(error.why.contains("circle"), "{error:?}");
    }

    #[test]
    fn eight_aliases_are_followed_and_no_more() {
        let chain = |length: usize| {
            let owner = |number| {
                if number == 0 {
                    "s.d.".to_owned()
                } else {
                    format!("a{number}.d.")
                }
            };
            let alias = |number| cname(&owner(number), 9, &owner(number + 1));
            let mut records: Vec<_> = (0..length).map(alias).collect();
            records.push(a(&owner(length), 9, 1));
            message(records)
        };
        assert_eq!(found(&chain(MOST_ALIASES)), (1, 9));
        let error = asked(&chain(MOST_ALIASES + 1)).unwrap_err();
        assert!(error.why.contains("too far"), "{error:?}");
    }

    #[test]
    fn a_server_that_names_other_servers_has_not_answered() {
        let mut referral = message(vec![]);
        let server = RData::NS(NS(name("ns.d.")));
        referral.authorities = vec![Record::from_rdata(name("d."), 9, server)];
        let error = asked(&referral).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Rejected);
        // One that is responsible for the name may name itself.
        referral.metadata.authoritative = true;
        let (exists, ttl) = (true, None);
        let none = Step::Answer(Answer::None { exists, ttl });
        assert_eq!(asked(&referral).unwrap(), none);
        referral.metadata.authoritative = false;
        referral.authorities.push(soa(60, 7));
        assert!(asked(&referral).is_ok());
    }

    #[test]
    fn nothing_holds_for_as_long_as_the_zone_says() {
        let mut none = message(vec![]);
        none.authorities = vec![soa(60, 7)];
        let is = |message: &Message, exists, ttl| {
            let expected = Answer::None { exists, ttl };
            assert_eq!(asked(message).unwrap(), Step::Answer(expected));
        };
        is(&none, true, Some(7));
        none.metadata.response_code = ResponseCode::NXDomain;
        is(&none, false, Some(7));
        none.authorities.clear();
        is(&none, false, None);
        // The alias is there, and what it leads to is not.
        let mut dangling = message(vec![cname("s.d.", 30, "y.d.")]);
        dangling.metadata.response_code = ResponseCode::NXDomain;
        is(&dangling, false, None);
        dangling.metadata.response_code = ResponseCode::NoError;
        dangling.authorities = vec![soa(60, 60)];
        is(&dangling, true, Some(30));
    }

    #[test]
    fn a_negative_ttl_is_none() {
        assert_eq!(found(&message(vec![a("s.d.", u32::MAX, 1)])), (1, 0));
        let longest = message(vec![a("s.d.", LONGEST_TTL, 1)]);
        assert_eq!(found(&longest), (1, LONGEST_TTL));
    }
}
