//! Protobuf's wire format: numbered fields of a few shapes (<https://protobuf.dev/programming-guides/encoding/>).

/// One value as it was sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// A text, bytes, or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers, in the order they were sent. Ends at the first error.
#[derive(Debug, Clone)]
pub struct Fields<'a>(pub &'a [u8]);

/// Groups, which nobody has written for twenty years, within groups.
const GROUPS: usize = 16;

impl<'a> Fields<'a> {
    /// One bare number, as packed lists hold them.
    pub(crate) fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or("it ends within a number")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number has more than ten bytes")
    }

    /// The length is the sender's word: it is compared with what is there before anything is done.
    fn take(&mut self, length: u64) -> Result<&'a [u8], &'static str> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.0.len());
        let (bytes, rest) = self.0.split_at(length.ok_or("it ends within a field")?);
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn fixed64(&mut self) -> Result<u64, &'static str> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn fixed32(&mut self) -> Result<u32, &'static str> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    }

    fn field(&mut self, groups: usize) -> Result<Option<(u32, Wire<'a>)>, &'static str> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| "a field's number is too large")?;
        if number == 0 {
            return Err("a field has the number 0");
        }
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.fixed64()?),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            3 => {
                let groups = groups.checked_sub(1).ok_or("groups are nested too deeply")?;
                while self.field(groups)?.is_some() {}
                return Ok(Some((number, Wire::Bytes(&[]))));
            }
            4 if groups < GROUPS => return Ok(None),
            5 => Wire::Fixed32(self.fixed32()?),
            _ => return Err("a field has a wire type that does not exist"),
        };
        Ok(Some((number, wire)))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field(GROUPS).transpose();
        if matches!(field, None | Some(Err(_))) {
            self.0 = &[];
        }
        field
    }
}

/// Appends a number, seven bits a byte.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`put_varint`] appends.
pub fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a numeric field.
pub fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Appends a double.
pub fn put_real(out: &mut Vec<u8>, number: u32, value: f64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Appends a text, bytes or a message that is there already.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_head(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends what stands before so many bytes of a text or message.
pub fn put_head(out: &mut Vec<u8>, number: u32, length: usize) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, length as u64);
}

/// Appends a message that `fill` writes in place. Its length is known only then, and is turned in before it.
pub fn put_message<E>(
    out: &mut Vec<u8>,
    number: u32,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    put_varint(out, u64::from(number) << 3 | 2);
    let start = out.len();
    fill(out)?;
    let length = out.len() - start;
    put_varint(out, length as u64);
    let digits = out.len() - start - length;
    out[start..].rotate_right(digits);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_they_are_said_to_be() {
        for value in [0, 1, 127, 128, 300, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_length(value), "{value}");
            assert_eq!(Fields(&out).varint(), Ok(value));
        }
    }

    #[test]
    fn messages_of_any_length_get_their_head() {
        for length in [0, 1, 127, 128, 20_000] {
            let mut out = b"before".to_vec();
            put_message::<()>(&mut out, 3, |out| {
                out.extend(vec![7; length]);
                Ok(())
            })
            .unwrap();
            let mut fields = Fields(&out[6..]);
            assert_eq!(fields.next(), Some(Ok((3, Wire::Bytes(&vec![7; length])))));
            assert_eq!(fields.next(), None);
        }
    }

    #[test]
    fn groups_are_stepped_over() {
        // Field 1 a group with field 2 and a group in it, then field 3.
        let sent = [0x0b, 0x10, 0x05, 0x13, 0x14, 0x0c, 0x18, 0x07];
        let fields: Vec<_> = Fields(&sent).collect();
        assert_eq!(fields, [Ok((1, Wire::Bytes(&[]))), Ok((3, Wire::Varint(7)))]);
        assert!(Fields(&[0x0b; 100]).any(|f| f.is_err()), "too deep");
        assert!(Fields(&[0x0c]).any(|f| f.is_err()), "an end without a beginning");
        assert!(Fields(&[0x0b, 0x10]).any(|f| f.is_err()), "no end");
    }
}
