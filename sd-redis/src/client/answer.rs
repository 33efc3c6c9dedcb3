//! Reading the server's answers, none of which is taken for what it should be.

use redis::Value;
use sd_core::{Error, Result};

use crate::client::error::{odd_answer, refused};

/// Answers of one request, taken one after the other.
#[derive(Debug)]
pub(crate) struct Answers {
    op: &'static str,
    values: std::vec::IntoIter<Value>,
}

impl Answers {
    pub(crate) fn new(op: &'static str, values: Vec<Value>) -> Self {
        Self {
            op,
            values: values.into_iter(),
        }
    }

    /// # Errors
    /// What the server answered instead.
    fn next(&mut self) -> Result<Value> {
        let value = self.values.next().ok_or_else(|| odd_answer(self.op))?;
        match value {
            Value::ServerError(error) => Err(refused(self.op, &error)),
            value => Ok(value),
        }
    }

    /// An answer that is made of answers.
    ///
    /// # Errors
    /// What the server answered instead.
    pub(crate) fn list(&mut self) -> Result<Self> {
        match self.next()? {
            Value::Array(values) | Value::Set(values) => Ok(Self::new(self.op, values)),
            _ => Err(odd_answer(self.op)),
        }
    }

    /// Pairs, such as the fields of a hash with their values.
    ///
    /// # Errors
    /// What the server answered instead.
    pub(crate) fn pairs(&mut self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let op = self.op;
        let odd = move || odd_answer(op);
        match self.next()? {
            Value::Map(pairs) => {
                let pairs = pairs.into_iter();
                let pairs = pairs.map(|(key, value)| bytes(key).zip(bytes(value)).ok_or_else(odd));
                pairs.collect()
            }
            Value::Array(values) => {
                let mut values = values.into_iter();
                let mut pairs = Vec::with_capacity(values.len() / 2);
                while let Some(key) = values.next() {
                    let value = values.next().and_then(bytes);
                    pairs.push(bytes(key).zip(value).ok_or_else(odd)?);
                }
                Ok(pairs)
            }
            _ => Err(odd()),
        }
    }

    /// # Errors
    /// What the server answered instead.
    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>> {
        let value = self.next()?;
        bytes(value).ok_or_else(|| odd_answer(self.op))
    }

    /// # Errors
    /// What the server answered instead.
    pub(crate) fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?).map_err(|_| odd_answer(self.op))
    }

    /// A number, or its digits.
    ///
    /// # Errors
    /// What the server answered instead.
    pub(crate) fn number<N: TryFrom<i64>>(&mut self) -> Result<N> {
        let number = match self.next()? {
            Value::Int(number) => Some(number),
            value => {
                bytes(value).and_then(|digits| std::str::from_utf8(&digits).ok()?.parse().ok())
            }
        };
        let number = number.and_then(|number| N::try_from(number).ok());
        number.ok_or_else(|| odd_answer(self.op))
    }

    /// All that is left, as bytes.
    ///
    /// # Errors
    /// What the server answered instead.
    pub(crate) fn all_bytes(mut self) -> Result<Vec<Vec<u8>>> {
        let mut all = Vec::with_capacity(self.values.len());
        while self.values.len() > 0 {
            all.push(self.bytes()?);
        }
        Ok(all)
    }

    /// How many are left.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The error for an answer that nothing can be made of.
    pub(crate) fn odd(&self) -> Error {
        odd_answer(self.op)
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        Value::Okay => Some(b"OK".to_vec()),
        Value::Int(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

/// What `name` is in the answer to `HELLO`.
pub(crate) fn field(value: &Value, name: &str) -> Option<String> {
    let Value::Map(pairs) = value else {
        return None;
    };
    let is_it = |key: &Value| match key {
        Value::BulkString(key) => key == name.as_bytes(),
        Value::SimpleString(key) => key == name,
        _ => false,
    };
    let (_, value) = pairs.iter().find(|(key, _)| is_it(key))?;
    String::from_utf8(bytes(value.clone())?).ok()
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    fn of(values: Vec<Value>) -> Answers {
        Answers::new("test", values)
    }

    #[test]
    fn answers_are_taken_in_order_and_refused_where_they_are_something_else() {
        let text = |text: &str| Value::BulkString(text.into());
        let inner = vec![text("a"), text("b"), Value::Int(3), text("4")];
        let mut answers = of(vec![
            Value::Okay,
            Value::Array(inner),
            Value::Int(-1),
            Value::Nil,
        ]);
        assert_eq!(answers.text().unwrap(), "OK");
        let mut list = answers.list().unwrap();
        assert_eq!((list.text().unwrap(), list.len()), ("a".to_owned(), 3));
        assert_eq!(list.all_bytes().unwrap(), [b"b", b"3", b"4"]);
        assert_eq!(
            answers.number::<u64>().unwrap_err().kind(),
            ErrorKind::Rejected
        );
        assert!(answers.bytes().is_err() && answers.bytes().is_err());
        let digits = of(vec![text("12")]).number::<u64>();
        assert_eq!(digits.unwrap(), 12);
        let odd = of(vec![Value::Array(vec![text("a")])]).pairs();
        assert_eq!(odd.unwrap_err().kind(), ErrorKind::Rejected);
        let map = Value::Map(vec![(text("role"), text("master"))]);
        assert_eq!(field(&map, "role").as_deref(), Some("master"));
        assert_eq!(
            of(vec![map]).pairs().unwrap(),
            [(b"role".to_vec(), b"master".to_vec())]
        );
    }
}
