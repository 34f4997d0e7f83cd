//! Logger service, on the admin socket only: the log level while the server runs.

use avouch::logs::{Level, LogHandle};
use avouch_proto::logger_v1::logger_server::Logger;
use avouch_proto::logger_v1::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use avouch_proto::types;
use tonic::{Code, Request, Response, Status};

use crate::api::call::open;

/// The service.
#[derive(Clone, Debug)]
pub struct LoggerApi {
    pub logs: LogHandle,
}

impl LoggerApi {
    fn state(&self) -> types::Logger {
        types::Logger {
            current_level: self.logs.level().number(),
            launch_level: self.logs.launch_level().number(),
        }
    }
}

/// Reads a level; zero and numbers that are no level have their own texts.
fn level_of(number: i32) -> Result<Level, Status> {
    match (number, Level::from_number(number)) {
        (0, _) => Err(Status::invalid_argument("newLevel value cannot be LogLevel_UNSPECIFIED")),
        (_, None) => Err(Status::invalid_argument("unsupported log level")),
        (_, Some(level)) => Ok(level),
    }
}

#[tonic::async_trait]
impl Logger for LoggerApi {
    async fn get_logger(
        &self,
        request: Request<GetLoggerRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let (call, _) = open(request)?;
        call.audit().item(Code::Ok, "");
        Ok(Response::new(self.state()))
    }

    async fn set_log_level(
        &self,
        request: Request<SetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        let level = level_of(request.new_level);
        line.text("new_log_level", level.as_ref().map_or("", |level| level.name()));
        self.logs.set_level(line.conclude(level)?);
        Ok(Response::new(self.state()))
    }

    async fn reset_log_level(
        &self,
        request: Request<ResetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let (call, _) = open(request)?;
        self.logs.reset_level();
        call.audit().item(Code::Ok, "");
        Ok(Response::new(self.state()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_level_and_an_unknown_one_have_their_own_texts() {
        let text = |n| level_of(n).unwrap_err().message().to_owned();
        assert_eq!(text(0), "newLevel value cannot be LogLevel_UNSPECIFIED");
        assert_eq!(text(8), "unsupported log level");
        assert_eq!(level_of(5).ok(), Some(Level::Info));
    }
}
